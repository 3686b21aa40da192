"""Extreme classification: catalogue, encoders, training, retrieval, evaluation, registry, serving.

The library knows nothing of Kubeflow: the pipeline's components call its steps, never the reverse.
"""

from importlib.metadata import version

__version__ = version("xcflow")
