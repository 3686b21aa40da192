"""A step on several machines of a cluster, through a TrainJob of Kubeflow Trainer."""
