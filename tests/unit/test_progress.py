"""Progress on a terminal and elsewhere."""

import re

import pytest

from xcflow import progress as module
from xcflow.progress import progress


def test_elsewhere_one_line_at_the_end(capsys: pytest.CaptureFixture[str]):
    with progress("reading", 3000, "rows") as advance:
        advance(1000)
        advance(2000, "loss 0.5")
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"reading: 3,000 rows in \d+\.\d s loss 0\.5\n", err)


def test_now_and_then_a_line_with_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    clock = iter([0.0, 10.0, 20.0, 25.0, 40.0, 41.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress("reading", 100, "rows") as advance:
        advance(20, "first")
        advance(20)
        advance(5)
        advance(15, "last")
    assert capsys.readouterr().err.splitlines() == [
        "reading: 40/100 rows, 2/s, 30 s left first",
        "reading: 60/100 rows, 2/s, 27 s left last",
        "reading: 60 rows in 41.0 s last",
    ]


def test_a_line_before_anything_is_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    clock = iter([0.0, 20.0, 30.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress("reading", 100, "rows") as advance:
        advance(0, "waiting")
    assert "0/100 rows" in capsys.readouterr().err


def test_a_failure_is_not_announced_as_an_end(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(KeyError), progress("reading", 3, "rows"):
        raise KeyError
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True)
    with progress("reading", 20, "rows") as advance:
        advance(20, "loss 0.5")
    err = capsys.readouterr().err
    assert "reading" in err
    assert "20/20" in err
    assert "rows/s" in err
