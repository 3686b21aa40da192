import threading
import time

import pytest

from xcflow.phases import OTHER, StepTimes, phase, timed


def test_times_add_up_and_inner_phases_are_not_counted_twice():
    with timed() as clock:
        time.sleep(0.02)
        with phase("train"):
            time.sleep(0.02)
            for _ in range(2):
                with phase("update"):
                    time.sleep(0.02)
        times = clock.times()
    assert set(times.phases) == {OTHER, "train", "train/update"}
    assert sum(times.phases.values()) == pytest.approx(times.seconds)
    assert times.phases["train/update"] >= 0.04
    assert times.phases["train"] + times.phases["train/update"] <= times.seconds - 0.02
    assert times.peak_memory_mb > 1


def test_a_failing_phase_is_left():
    with timed() as clock:
        with pytest.raises(ValueError, match="no"), phase("a"):
            raise ValueError("no")
        with phase("b"):
            pass
        assert "b" in clock.times().phases


def test_outside_a_step_and_in_other_threads_nothing_is_measured():
    with phase("nowhere"):
        pass

    def work():
        with phase("elsewhere"):
            pass

    with timed() as clock:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        times = clock.times()
    assert set(times.phases) == {OTHER}


def test_a_phase_costs_next_to_nothing():
    """Far below what a training step takes, even on a machine that does much else besides."""
    with timed():
        start = time.perf_counter()
        for _ in range(10_000):
            with phase("step"):
                pass
        seconds = time.perf_counter() - start
    assert seconds / 10_000 < 1e-4


def test_times_travel_as_plain_values():
    times = StepTimes(2.0, {"read": 1.5, OTHER: 0.5}, 100.0)
    assert StepTimes.from_dict(times.to_dict()) == times
