"""The batch job: a file of texts to a file of answers, in bounded memory, resumable."""
