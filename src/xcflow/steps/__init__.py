"""The steps of the pipeline: one function each, the same for the CLI, tests and components.

A step reads folders (``inputs``) and the configuration and writes one folder (``output``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from xcflow.config import Config
from xcflow.cores import usable_cores, use_threads
from xcflow.disk import claimed, require_no_file, writable
from xcflow.distributed.world import World, joined, processes_here
from xcflow.errors import ConfigError
from xcflow.phases import phase
from xcflow.progress import silence
from xcflow.storage import fetch


@dataclass(frozen=True)
class Step:
    """The declaration of a step.

    Attributes:
        name: Its name; the module ``xcflow.steps.<name>`` holds ``run(config, inputs, output)``.
        inputs: Names of the folders it needs.
        optional_inputs: Names of folders it can do without.
        sections: Sections of the configuration that it reads; a change in others leaves it cached.
        produces: Kind of the folder it writes.
    """

    name: str
    inputs: tuple[str, ...]
    sections: tuple[str, ...]
    produces: str
    optional_inputs: tuple[str, ...] = ()

    @property
    def shared(self) -> bool:
        """Whether several processes can share its work."""
        return "distributed" in self.sections

    @property
    def identity(self) -> tuple[str, ...]:
        """Sections that its result is known by: all but those that say where it is made."""
        return tuple(name for name in self.sections if name not in ("checkpoint", "distributed"))


_MODEL = ("run", "data", "encoder")

STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step("validate_data", ("catalogue",), ("data", "encoder", "validation"), "dataset"),
        Step("check_drift", ("dataset",), ("drift",), "drift", optional_inputs=("accepted",)),
        Step("cluster_labels", ("dataset",), (*_MODEL, "clustering"), "clusters"),
        Step(
            "train_encoder",
            ("dataset", "clusters"),
            (*_MODEL, "clustering", "module_one", "checkpoint", "distributed"),
            "encoder",
        ),
        Step(
            "export_embeddings",
            ("dataset", "encoder"),
            (*_MODEL, "module_one", "distributed"),
            "embeddings",
        ),
        Step(
            "train_classifier",
            ("dataset", "embeddings"),
            (*_MODEL, "module_two", "retrieval", "checkpoint", "distributed"),
            "classifier",
        ),
        Step(
            "build_index",
            ("dataset", "encoder", "embeddings", "classifier"),
            # What training it is of stands in the bundle, for the steps that go on from it.
            (*_MODEL, "module_one", "retrieval", "fusion", "calibration"),
            "bundle",
        ),
        Step("refresh_model", ("dataset", "champion"), ("run", "refresh"), "bundle"),
        Step(
            "evaluate_model",
            ("dataset", "bundle"),
            ("run", "evaluation", "distributed"),
            "evaluation",
            optional_inputs=("champion",),
        ),
        Step("gate_model", ("evaluation",), ("gate",), "verdict"),
        Step("promote_model", ("bundle", "evaluation", "verdict"), ("tracking",), "promotion"),
    )
}

# The steps of each pipeline, in their order; they share all but what makes the bundle.
REFRESHING = (
    "validate_data",
    "check_drift",
    "refresh_model",
    "evaluate_model",
    "gate_model",
    "promote_model",
)
RETRAINING = tuple(name for name in STEPS if name != "refresh_model")


def fetch_inputs(inputs: Mapping[str, str], into: Path) -> dict[str, Path]:
    """Make the inputs of a step readable on this machine.

    Args:
        inputs: Name of an input -> folder, or URI of one; all but a catalogue must be whole.
        into: Folder of copies of remote ones.

    Raises:
        StorageError: One is not there, not whole, or cannot be read.
    """
    return {name: fetch(uri, into, complete=name != "catalogue") for name, uri in inputs.items()}


def run_step(name: str, config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Run one step on folders.

    Where several processes are to share it, this one starts them and waits. Under torchrun each
    rank calls this with the same arguments, and the first one writes the output.

    Args:
        name: One of ``STEPS``.
        config: The configuration; only the step's sections are read.
        inputs: Name of an input -> folder.
        output: The folder to write; it appears only when whole.

    Raises:
        ConfigError: No such step, or an input is missing or unknown, or several machines are asked
            for, which only a task on a cluster can start.
        BusyError: Another process is writing the output.
    """
    require_inputs(name, inputs)
    step, alone = STEPS[name], World.of_environment().alone
    if step.shared and alone and config.distributed.nodes > 1:
        raise ConfigError(
            f"step {name}: distributed.nodes = {config.distributed.nodes} is for pipelines that "
            "were compiled for a cluster with it: here, set it to 1"
        )
    if step.shared and alone and config.distributed.processes > 1:
        from xcflow.steps.launch import run_as_ranks

        run_as_ranks(name, config, inputs, output)
        return
    if not (step.shared or alone):
        raise ConfigError(f"step {name} is the work of one process: start it without torchrun")
    _use_threads(config.run.threads)
    with phase("imports"):
        module = import_module(f"xcflow.steps.{name}")
    with joined() as world, claimed(Path(output)) if world.first else silence():
        if world.first:
            with writable(Path(output)):
                require_no_file(Path(output))
        module.run(config, {key: Path(path) for key, path in inputs.items()}, Path(output))
        world.meet()


def require_inputs(name: str, inputs: Collection[str]) -> None:
    """Refuse a step that there is not, or inputs that are not its own.

    Raises:
        ConfigError: No such step, or an input is missing or unknown.
    """
    if name not in STEPS:
        raise ConfigError(f"no step named {name!r}: known are {', '.join(STEPS)}")
    step = STEPS[name]
    missing = [i for i in step.inputs if i not in inputs]
    unknown = [i for i in inputs if i not in step.inputs + step.optional_inputs]
    if missing or unknown:
        what = f"needs the input {missing[0]}" if missing else f"has no input {unknown[0]}"
        raise ConfigError(f"step {name} {what}: its inputs are {', '.join(step.inputs)}")


def _use_threads(threads: int) -> None:
    """Give numeric libraries as many threads as the process may use; more only slow them down."""
    use_threads(max(1, (threads or usable_cores()) // processes_here()))
