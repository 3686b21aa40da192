"""What comes in: readers, validation, tokenisation and the canonical data set."""
