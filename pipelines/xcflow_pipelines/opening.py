"""How each pipeline begins: its first task opens the run and says what the others get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xcflow_components.configure import configure


@dataclass(frozen=True)
class OpenedRun:
    """A run whose first task has been declared.

    Attributes:
        task: That task.
        placed: Gives a task, by its name, its settings.
        library_digest: The pipeline's parameter of that name.
    """

    task: Any
    placed: Callable[[Any, str], Any]
    library_digest: Any

    @property
    def name(self) -> Any:
        """The run's name."""
        return self.task.outputs["run_name"]

    @property
    def catalogue_digest(self) -> Any:
        """Identity of the catalogue's content."""
        return self.task.outputs["catalogue_digest"]

    def step(self, component: Any, **arguments: Any) -> Any:
        """Declare the task of a step, which gets only the sections that it reads."""
        name = component.python_func.__name__
        settings = self.task.outputs[name]
        return self.placed(
            component(library_digest=self.library_digest, config=settings, **arguments), name
        )


def open_run(placed: Callable[[Any, str], Any], **parameters: Any) -> OpenedRun:
    """Declare the first task.

    Args:
        placed: Gives a task, by its name, its settings.
        parameters: Those of the pipeline, which are the task's.
    """
    task = placed(configure(**parameters), "configure")
    return OpenedRun(task, placed, parameters["library_digest"])
