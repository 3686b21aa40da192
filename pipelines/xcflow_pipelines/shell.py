"""How a command ends: exit codes, one line for each error, no traceback."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import typer

from xcflow.disk import refusal
from xcflow.errors import ConfigError, GateError, XcflowError
from xcflow.home import Home
from xcflow.interruption import Interruption

OK, FAILED, USAGE, NOT_PROMOTED = 0, 1, 2, 3


class BadUsageError(XcflowError):
    """The command line asks for something that cannot be."""


def command_name() -> str:
    """What to type for ``xcflow`` here: by its path, where it is not on the search path."""
    if shutil.which("xcflow"):
        return "xcflow"
    called = sys.argv[0]
    return called if Path(called).name == "xcflow" else "python -m xcflow_pipelines"


def guarded(command: Callable[[], object]) -> int:
    """Run a command line and return its exit code; whatever goes wrong becomes one line."""
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has seen enough. Python would complain while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "xcflow"
        complain(f"{error.format_message().rstrip('.')} (see: {path} --help)")
        return error.exit_code
    except (ConfigError, BadUsageError) as error:
        complain(error)
        return USAGE
    except Interruption as interruption:
        complain(interruption)
        return interruption.exit_code
    except GateError as error:
        complain(error)
        return NOT_PROMOTED
    except XcflowError as error:
        complain(error)
        return FAILED
    except Exception as error:  # noqa: BLE001  # the last resort
        if reason := refusal(error):
            complain(f"{getattr(error, 'filename', None) or 'the disk'}: {reason}")
            return FAILED
        complain(f"unexpected {type(error).__name__}: {error} (details: {_write_details()})")
        return FAILED
    return code if isinstance(code, int) else OK


def complain(error: object) -> None:
    """Write one line to standard error."""
    sys.stderr.write(f"xcflow: {' '.join(str(error).split())}\n")


def _write_details() -> Path:
    """Keep the traceback of the exception at hand in a file."""
    name = f"error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for folder in (Home.at().root / "logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(traceback.format_exc(), encoding="utf-8")
        except OSError:
            continue
        return folder / name
    return Path(os.devnull)
