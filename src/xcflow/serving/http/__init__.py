"""The server: a model behind HTTP, by the Open Inference Protocol and a plain JSON API."""
