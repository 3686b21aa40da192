"""The process that starts the ranks of one machine, and starts them all again when one is lost.

    python -m xcflow.distributed.agent NOTES MODULE SETTINGS

``SETTINGS`` are those of torchrun's own agent, which this is, as JSON. Unlike the command
``torchrun`` it writes nothing of its own to the terminal, leaves a note of how it ended, and ends
when whoever started it is gone: then its standard input closes.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from xcflow.distributed.notes import GRACE_S, LOST


def main() -> None:
    """Run the ranks and exit with 0 when they are done."""
    notes, module, settings = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    # Ranks meet at a store of their own each time: in the agent's they would find the addresses of
    # those that are gone.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Without a place it would leave a folder in the system's for temporary files.
    logs = DefaultLogsSpecs(str(Path(notes) / "logs"))
    config = LaunchConfig(**json.loads(settings), shutdown_timeout=GRACE_S, logs_specs=logs)
    try:
        elastic_launch(config, sys.executable)("-m", module)
    except ChildFailedError as error:
        # Those that a signal ended come first: the others only lost their connections.
        rank, failure = min(
            error.failures.items(), key=lambda item: (item[1].exitcode >= 0, item[1].timestamp)
        )
        note = {"rank": rank, "exit_code": failure.exitcode}
        (Path(notes) / LOST).write_text(json.dumps(note), encoding="utf-8")
        sys.exit(1)
    except SignalException as error:
        sys.exit(128 + error.sigval)


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
