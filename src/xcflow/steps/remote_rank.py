"""One of the ranks of a remote job: ``torchrun -m xcflow.steps.remote_rank URI``."""

from __future__ import annotations

import sys
import traceback

from xcflow.errors import XcflowError
from xcflow.interruption import Interruption, interruptible
from xcflow.steps.remote_job import RemoteJob


def main() -> None:
    """Do this rank's share of the job."""
    job = RemoteJob(sys.argv[1])
    try:
        with interruptible():
            if error := job.error:  # torchrun would try again what no trying helps against
                raise error
            job.do()
    except XcflowError as error:
        job.note_error(error)
        print(f"xcflow: {error}", file=sys.stderr, flush=True)  # noqa: T201
        sys.exit(1)
    except Interruption as interruption:
        sys.exit(interruption.exit_code)
    except Exception:
        job.note_trace(traceback.format_exc().rstrip() + "\n")
        raise


if __name__ == "__main__":
    main()
