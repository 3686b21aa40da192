"""Work in another thread."""

import os
import subprocess
import sys
import threading

import pytest

from xcflow.retrieval.aside import aside


@pytest.fixture(params=["1", "2"])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OMP_NUM_THREADS", request.param)
    return request.param


def test_results_come_to_who_asked(threads: str):
    results = [aside(lambda i=i: (i, threading.current_thread())) for i in range(20)]
    found = [result() for result in reversed(results)][::-1]
    assert [i for i, _ in found] == list(range(20))
    here = {thread is threading.current_thread() for _, thread in found}
    assert here == {threads == "1"}


def test_what_it_raises_is_raised_to_who_asked(threads: str):
    def fail() -> None:
        raise ValueError("no such thing")

    failing, going = aside(fail), aside(lambda: 1)
    with pytest.raises(ValueError, match="no such thing"):
        failing()
    assert going() == 1


def test_a_forked_process_has_its_own():
    program = (
        "import os, sys\n"
        "from xcflow.retrieval.aside import aside\n"
        "assert aside(lambda: 1)() == 1\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(7 if aside(lambda: 2)() == 2 else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], env=environment, timeout=60
    )
    assert done.returncode == 7
