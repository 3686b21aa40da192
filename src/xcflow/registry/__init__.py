"""Runs, model versions, promotion: the only place that imports mlflow."""
