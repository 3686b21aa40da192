"""A step that other machines do: what travels to them and back through a shared folder.

SHARE/inputs/DIGEST        an input, once for all jobs that read it
SHARE/jobs/NAME/job.json   what is to be done
SHARE/jobs/NAME/output     what the step wrote
SHARE/checkpoints          states of training, unless ``checkpoint.uri`` names another place
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from xcflow.artifact import MANIFEST, json_digest, read_manifest
from xcflow.config import Config
from xcflow.distributed.notes import note_of, noted
from xcflow.distributed.world import World
from xcflow.errors import DistributedError, StorageError, XcflowError
from xcflow.home import Home
from xcflow.library import library_digest
from xcflow.steps import STEPS, fetch_inputs, run_step
from xcflow.storage import (
    create_file,
    delivered,
    fetch,
    listing,
    publish,
    read_file,
    remove_file,
    replace_file,
)

_DIGEST_CHARS = 16


@dataclass(frozen=True)
class RemoteJob:
    """A step's work for one run, in a folder of its own.

    Attributes:
        uri: The folder.
    """

    uri: str

    @classmethod
    def of(cls, run: str, step: str, config: Config, inputs: Mapping[str, Path]) -> RemoteJob:
        """The job that does just this; whoever asks again for the same run gets the same one.

        Args:
            run: Identity of the pipeline's run.
            step: The step.
            config: The configuration; ``distributed.share`` says where jobs stand.
            inputs: Name of an input -> folder.
        """
        digests = {name: read_manifest(folder).digest for name, folder in inputs.items()}
        work = [run, step, library_digest(), config.digest(*STEPS[step].identity), digests]
        name = f"xcflow-{step.replace('_', '-')}-{json_digest(work)[:_DIGEST_CHARS]}"
        return cls(f"{config.distributed.share.rstrip('/')}/jobs/{name}")

    @property
    def name(self) -> str:
        """Its name, fit for a Kubernetes object."""
        return self.uri.rpartition("/")[2]

    @property
    def done(self) -> bool:
        """Whether the output stands there whole."""
        return any(file.name == MANIFEST for file in listing(self._at("output")))

    def hand_in(self, step: str, config: Config, inputs: Mapping[str, Path]) -> None:
        """Send what the machines need; inputs that stand there already are not sent again.

        Raises:
            StorageError: It cannot be written to the share.
        """
        share = config.distributed.share.rstrip("/")
        places = {}
        for name, folder in inputs.items():
            places[name] = f"{share}/inputs/{read_manifest(folder).digest}"
            publish(folder, places[name])
        states = config.checkpoint.uri or f"{share}/checkpoints"
        config = replace(config, checkpoint=replace(config.checkpoint, uri=states))
        job = {"step": step, "config": json.loads(config.to_json()), "inputs": places}
        for note in ("error.json", "trace.txt"):
            remove_file(self._at(note))
        replace_file(self._at("job.json"), json.dumps(job, indent=1).encode())

    def do(self) -> None:
        """Do this rank's share of the work; the first rank sends the output.

        Raises:
            XcflowError: What the step raises, or the share.
        """
        content = read_file(self._at("job.json"))
        if content is None:
            raise StorageError(f"{self._at('job.json')}: no such file: start the step again")
        job, home = json.loads(content), Home.at()
        inputs = fetch_inputs(job["inputs"], home.downloads)
        place = (
            delivered(self._at("output"), home)
            if World.of_environment().first
            else nullcontext(home.outputs)
        )
        with place as output:
            run_step(job["step"], Config.from_dict(job["config"]), inputs, output)

    def take(self, output: Path) -> None:
        """Bring the output to a folder of this machine.

        Raises:
            StorageError: It is not there or not whole, or cannot be read or written.
        """
        publish(fetch(self._at("output"), Home.at().downloads, complete=True), output)

    def note_error(self, error: XcflowError) -> None:
        """Keep the first error that is the user's to mend: those of other ranks may follow."""
        self._note("error.json", note_of(error))

    def note_trace(self, text: str) -> None:
        """Keep the traceback of the first rank that failed of anything else."""
        self._note("trace.txt", text)

    @property
    def error(self) -> XcflowError | None:
        """Why it cannot be done, where a rank said so."""
        content = read_file(self._at("error.json"))
        return None if content is None else noted(content)

    def failure(self, reason: str) -> XcflowError:
        """What to tell of a job that the cluster calls failed.

        Args:
            reason: What the cluster says.
        """
        with suppress(StorageError):
            if error := self.error:
                return error
            if trace := read_file(self._at("trace.txt")):
                reason += f"; {trace.decode().splitlines()[-1]} ({self._at('trace.txt')})"
        return DistributedError(
            f"TrainJob {self.name} failed: {reason}: start the step again to go on from the last "
            "checkpoint"
        )

    def _at(self, name: str) -> str:
        return f"{self.uri}/{name}"

    def _note(self, name: str, text: str) -> None:
        with suppress(StorageError):  # then the pods' logs alone tell it
            create_file(self._at(name), text.encode())
