"""One thin module per step of the pipeline: a typed Kubeflow declaration that calls xcflow.steps."""
