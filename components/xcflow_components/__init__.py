"""One thin module for each task of the pipeline: a typed Kubeflow declaration.

A component's body runs inside the image, where xcflow is installed; it only hands its arguments to
the library. What the local runner and a cluster execute is therefore the same.

``library_digest`` and ``catalogue_digest`` are parameters that no body needs for its work: neither
the code in the image nor the content behind a URI is part of Kubeflow's cache key, so they are
brought in as arguments.
"""

from importlib.metadata import version

IMAGE = f"xcflow-train:{version('xcflow')}"
