"""The predictor behind the command line, batch jobs and servers."""
