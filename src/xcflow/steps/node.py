"""One of several machines that share a step: ``python -m xcflow.steps.node WORK``.

It copies the inputs here, starts its ranks, and publishes the output if the first rank is one of
them. ``WORK`` is what ``Work.to_json`` gives.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from xcflow.config import Config
from xcflow.distributed.notes import ERROR, LOST
from xcflow.errors import ConfigError, DistributedError, XcflowError
from xcflow.library import library_digest
from xcflow.steps.launch import Meeting, run_as_ranks
from xcflow.steps.task import one_line_errors
from xcflow.storage import fetch, publish, publish_file


@dataclass(frozen=True)
class Work:
    """What the machines are to do.

    Attributes:
        name: Name of the work, by which they find each other.
        step: The step.
        config: Its sections of the configuration as JSON.
        inputs: Name of an input -> URI of its folder.
        output: URI of the folder to write.
        notes: URI of a folder for what goes wrong.
        library: Digest of the code that the machines must have.
    """

    name: str
    step: str
    config: str
    inputs: Mapping[str, str]
    output: str
    notes: str
    library: str

    def to_json(self) -> str:
        """As text for a command line."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of ``to_json``."""
        return cls(**json.loads(text))


def main() -> None:
    """Do this machine's share."""
    work = Work.from_json(sys.argv[1])
    with one_line_errors(), TemporaryDirectory(prefix="xcflow-node-") as scratch:
        try:
            _do(work, Path(scratch))
        except XcflowError as error:
            note = Path(scratch) / (LOST if isinstance(error, DistributedError) else ERROR)
            text = json.dumps({"kind": type(error).__name__, "line": " ".join(str(error).split())})
            note.write_text(text, encoding="utf-8")
            publish_file(note, f"{work.notes}/{note.name}")
            raise


def _do(work: Work, scratch: Path) -> None:
    if work.library != library_digest():
        raise ConfigError(
            f"the run's code is {work.library[:12]}, that of the training runtime's image "
            f"{library_digest()[:12]}: give both the same image"
        )
    inputs = {name: fetch(uri, scratch / "inputs") for name, uri in work.inputs.items()}
    output = scratch / "output"
    meeting = Meeting.of_environment(work.name)
    run_as_ranks(work.step, Config.from_json(work.config), inputs, output, meeting)
    if output.exists():
        publish(output, work.output)


if __name__ == "__main__":
    main()
