"""The formats of catalogues: a reader for each, and what several of them need."""
