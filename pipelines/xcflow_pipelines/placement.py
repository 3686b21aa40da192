"""Where the tasks of a pipeline run: pipelines are declared once, and placed by one of these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

# Gives a task its settings: (task, name, whether it may be taken from the cache) -> the task.
# Caching is set task by task, since a setting of the pipeline would not reach all of them.
Placement: TypeAlias = Callable[[Any, str, bool], Any]


def on_this_machine(task: Any, name: str, cached: bool) -> Any:
    """Place a task under the local runner, which heeds nothing but caching.

    What belongs to the environment is given to the whole process: Kubeflow's local cache, unlike a
    cluster's, takes a task's variables for part of its identity.
    """
    return task.set_caching_options(enable_caching=cached)
