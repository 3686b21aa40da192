"""Notes that ranks, their agent and who started them leave each other, as files in one folder."""

from __future__ import annotations

import json

from xcflow import errors
from xcflow.errors import XcflowError

# The folder's path in the environment of the ranks.
VARIABLE = "XCFLOW_RANK_NOTES"
# What is to be done, for the ranks.
JOB = "job.json"
# The first error that is the user's to mend: its class and its line.
ERROR = "error.json"
# The traceback of any other, by rank.
TRACE = "rank-{}.txt"
# Which rank ended first when no restart was left.
LOST = "lost.json"
# How long ranks may take to save their state when they are told to end.
GRACE_S = 30


def note_of(error: XcflowError) -> str:
    """An error as the text of a note."""
    return json.dumps({"kind": type(error).__name__, "line": " ".join(str(error).split())})


def noted(text: str | bytes) -> XcflowError:
    """The error that a note is of."""
    note = json.loads(text)
    kind: type[XcflowError] = getattr(errors, note["kind"], XcflowError)
    return kind(note["line"])
