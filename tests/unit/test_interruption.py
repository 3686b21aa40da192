"""The first interruption ends work in good order, a second one at once."""

import signal
import subprocess
import sys

import pytest

from xcflow.interruption import Interruption, held_back, interruptible


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_raise_in_the_block_only(number, code):
    before = signal.getsignal(number)
    with pytest.raises(Interruption, match="same command again") as caught, interruptible():
        signal.raise_signal(number)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is before


def test_the_same_told_by_two_is_one_interruption():
    done = []

    def work():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)
            done.append(True)

    with pytest.raises(Interruption) as caught, interruptible():
        work()
    assert (caught.value.number, done) == (signal.SIGINT, [True])


def steps_until_interrupted(done, signals):
    """Work in steps; some steps, by their number, are interrupted so many times."""
    with interruptible(), held_back() as interrupted:
        for step in range(9):
            for _ in range(signals.get(step, 0)):
                signal.raise_signal(signal.SIGTERM)
            done.append(step)
            if interrupted():
                break


def test_one_that_is_held_back_comes_after_the_block():
    done = []
    with pytest.raises(Interruption):
        steps_until_interrupted(done, {3: 1})
    assert done == [0, 1, 2, 3]


def test_a_second_one_is_not_held_back():
    done = []
    with pytest.raises(Interruption):
        steps_until_interrupted(done, {3: 2})
    assert done == [0, 1, 2]


def test_what_a_process_was_started_to_ignore_stays_ignored():
    script = """
import signal
from xcflow.interruption import interruptible
signal.signal(signal.SIGINT, signal.SIG_IGN)
with interruptible():
    signal.raise_signal(signal.SIGINT)
print("untouched")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout == "untouched\n", done.stderr
