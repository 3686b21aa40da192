"""One of the ranks that ``launch`` starts for a step: ``python -m xcflow.steps.rank``."""

from __future__ import annotations

import json
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from xcflow.config import Config
from xcflow.distributed.notes import ERROR, JOB, TRACE, VARIABLE, note_of
from xcflow.errors import DistributedError, XcflowError
from xcflow.interruption import Interruption, interruptible
from xcflow.steps import run_step


def main() -> None:
    """Do this rank's share of the step."""
    notes = Path(os.environ[VARIABLE])
    if (notes / ERROR).exists():
        sys.exit(1)  # torchrun would try again what no trying helps against
    job = json.loads((notes / JOB).read_text(encoding="utf-8"))
    inputs = {name: Path(folder) for name, folder in job["inputs"].items()}
    try:
        with interruptible():
            run_step(job["step"], Config.from_json(job["config"]), inputs, Path(job["output"]))
    except Interruption as interruption:
        sys.exit(interruption.exit_code)
    except Exception as error:  # noqa: BLE001  # one line of it is shown, by who started the ranks
        if isinstance(error, XcflowError) and not isinstance(error, DistributedError):
            _note_error(notes, error)
            sys.exit(1)
        trace = traceback.format_exc().rstrip() + "\n"
        (notes / TRACE.format(os.environ["RANK"])).write_text(trace, encoding="utf-8")
        sys.exit(1)


def _note_error(notes: Path, error: XcflowError) -> None:
    """Keep the first error: those of other ranks may follow from it."""
    partial = notes / f"{os.getpid()}.partial"
    partial.write_text(note_of(error), encoding="utf-8")
    with suppress(FileExistsError):
        os.link(partial, notes / ERROR)


if __name__ == "__main__":
    main()
