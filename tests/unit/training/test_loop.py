"""The loop: what it asks of a trainee, when it stops, and that a killed run goes on unchanged."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from xcflow.interruption import Interruption, interruptible
from xcflow.training.checkpoint import Checkpoint
from xcflow.training.loop import Plan, Trainee, train

DOCUMENTS = 10


class Scripted:
    """A trainee whose validation scores are written down; its weight counts its steps."""

    def __init__(self, scores: Sequence[float]) -> None:
        self.weight = torch.zeros(1)
        self.batches: list[tuple[int, list[int], float]] = []
        self._scores = iter(scores)
        self._epoch = -1

    def order(self, epoch: int) -> np.ndarray:
        self._epoch = epoch
        return np.random.default_rng(epoch).permutation(DOCUMENTS)

    def step(self, rows: np.ndarray, rate: float, rng: np.random.Generator) -> float:
        self.batches.append((self._epoch, rows.tolist(), rate))
        self.weight += 1
        return float(self.weight)

    def validate(self) -> dict[str, float]:
        score = next(self._scores)
        return {"P@1": score / 2, "nDCG@5": score}

    def state(self, *, training: bool) -> dict[str, Tensor]:
        return {"weight": self.weight}

    def dealt(self) -> dict[str, int]:
        return {}

    def restore(self, tensors: dict[str, Tensor], *, training: bool) -> None:
        self.weight.copy_(tensors["weight"])


def plan(epochs: int, patience: int = 99, batch: int = 4, warmup: int = 0) -> Plan:
    return Plan("testing", epochs, batch, warmup, patience, seed=1)


def never(key: str = "k") -> Checkpoint:
    return Checkpoint("loop", key, 1e9)


def test_each_epoch_sees_every_document_once_in_equal_steps(home: Path):
    trainee = Scripted([0.0] * 9)
    train(trainee, DOCUMENTS, plan(3), never())
    for epoch in range(3):
        batches = [rows for e, rows, _ in trainee.batches if e == epoch]
        assert [len(rows) for rows in batches] == [3, 3, 4]
        assert [row for rows in batches for row in rows] == trainee.order(epoch).tolist()


def test_the_rate_warms_up_then_falls_to_nothing():
    rates = [plan(1, warmup=50).rate(step, 100) for step in range(100)]
    assert np.argmax(rates) == 10
    assert np.all(np.diff(rates[:11]) > 0)
    np.testing.assert_allclose(rates[10:], 1.0 - np.arange(10, 100) / 100)
    assert min(rates) > 0
    assert plan(1, warmup=2).rate(0, 100) == pytest.approx(1 / 3)
    assert plan(1, warmup=50).rate(0, 3) == 1.0


def test_the_best_state_is_left(home: Path):
    trainee = Scripted([0.1, 0.2, 0.5, 0.4, 0.5])
    history = train(trainee, DOCUMENTS, plan(4), never())
    assert float(trainee.weight) == 6.0  # two epochs of three steps
    assert (history["best_epoch"], history["epochs"]) == (1, 4)


def test_the_untrained_state_can_be_the_best(home: Path):
    trainee = Scripted([0.9, 0.2, 0.5])
    history = train(trainee, DOCUMENTS, plan(2), never())
    assert float(trainee.weight) == 0.0
    assert history["best_epoch"] == -1


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4), (3, 8), (99, 9)])
def test_it_stops_after_as_many_epochs_without_progress(home: Path, patience: int, epochs: int):
    scores = [0.1, 0.2, 0.3, 0.3, 0.2, 0.4, 0.1, 0.1, 0.1, 0.1]
    history = train(Scripted(scores), DOCUMENTS, plan(9, patience), never())
    assert history["epochs"] == epochs


def test_no_epochs(home: Path):
    trainee = Scripted([0.3])
    history = train(trainee, DOCUMENTS, plan(0), never())
    assert trainee.batches == []
    assert history == {
        "series": {"validation/P@1": [[0, 0.15]], "validation/nDCG@5": [[0, 0.3]]},
        "best_epoch": -1,
        "epochs": 0,
    }


def test_the_curves(home: Path):
    history = train(Scripted([0.1, 0.2, 0.3]), DOCUMENTS, plan(2), never())
    assert history["series"]["train/loss"] == [[i, float(i)] for i in range(1, 7)]
    assert history["series"]["validation/nDCG@5"] == [[0, 0.1], [1, 0.2], [2, 0.3]]


def test_many_losses_become_a_few_points(home: Path):
    history = train(Scripted([0.0] * 2), DOCUMENTS * 10, plan(1, batch=2), never())
    points = history["series"]["train/loss"]
    assert len(points) == 25
    assert points[0] == [2, 1.5]
    assert points[-1] == [50, 49.5]


class KilledError(Exception):
    """Stands for the end of the process."""


class Killed:
    """A trainee that dies when it is asked for a certain step or validation."""

    def __init__(self, trainee: Trainee, step: int = -1, validation: int = -1) -> None:
        self._trainee = trainee
        self._left = {"step": step, "validate": validation}

    def __getattr__(self, name: str) -> Any:
        if name in self._left:
            if self._left[name] == 0:
                raise KilledError
            self._left[name] -= 1
        return getattr(self._trainee, name)


MODULES = {
    "bag": ("make_module_one", {"batch_size": 9}),
    "bag, no auxiliary vectors": ("make_module_one", {"batch_size": 9, "clusters": 0}),
    "bag, triplet": ("make_module_one", {"batch_size": 9, "loss": "triplet", "hardest": 3}),
    "transformer": ("make_module_one", {"batch_size": 9, "kind": "transformer"}),
    "both": ("make_module_one", {"batch_size": 9, "kind": "transformer_with_bag", "bags": 2}),
    "classifiers": ("make_module_two", {"batch_size": 9, "mine_every": 2}),
    "classifiers, not mined": ("make_module_two", {"batch_size": 9, "mined": 0}),
}


@pytest.fixture(params=MODULES)
def make(request: pytest.FixtureRequest) -> Callable[[], Trainee]:
    name, settings = MODULES[request.param]
    factory = request.getfixturevalue(name)
    return lambda: factory(**settings)


def run(trainee: Trainee, checkpoint: Checkpoint) -> dict[str, Any]:
    return train(trainee, 36, plan(3, batch=9, warmup=2), checkpoint)


def assert_same(trainee: Trainee, other: Trainee) -> None:
    state, expected = trainee.state(training=True), other.state(training=True)
    assert set(state) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


def test_a_killed_run_ends_as_if_nothing_had_happened(home: Path, make: Callable[[], Trainee]):
    undisturbed = make()
    history = run(undisturbed, never("undisturbed"))
    # Killed in the middle of an epoch, before its last step, between epochs, while validating, and
    # again in the run that went on.
    for number, kills in enumerate(
        [[{"step": 6}], [{"step": 4}, {"step": 1}, {"step": 3}], [{"validation": 2}]]
    ):
        key = f"killed {number}"
        for kill in kills:
            with pytest.raises(KilledError):
                run(Killed(make(), **kill), Checkpoint("loop", key, 0.0))
        resumed = make()
        assert run(resumed, Checkpoint("loop", key, 0.0)) == history
        assert_same(resumed, undisturbed)


@pytest.mark.parametrize(
    ("place", "steps", "validations"), [("order", 4, 2), ("step", 5, 2), ("validate", 3, 2)]
)
def test_what_is_interrupted_is_finished_and_saved(
    home: Path, place: str, steps: int, validations: int
):
    """Though the time to save had not come."""

    class Interrupted(Scripted):
        validated = 0

        def order(self, epoch: int) -> np.ndarray:
            self.interrupt("order", epoch == 1)
            return super().order(epoch)

        def step(self, rows: np.ndarray, rate: float, rng: np.random.Generator) -> float:
            self.interrupt("step", len(self.batches) == 4)
            return super().step(rows, rate, rng)

        def validate(self) -> dict[str, float]:
            self.interrupt("validate", self.validated == 1)
            self.validated += 1
            return super().validate()

        def interrupt(self, where: str, now: bool) -> None:
            if where == place and now:
                signal.raise_signal(signal.SIGTERM)

    first, second = Interrupted([0.1, 0.2, 0.3, 0.4]), Scripted([0.3, 0.4])
    with pytest.raises(Interruption), interruptible():
        train(first, DOCUMENTS, plan(3), never())
    assert (len(first.batches), first.validated) == (steps, validations)
    history = train(second, DOCUMENTS, plan(3), never())
    assert len(second.batches) == 9 - steps
    assert history["series"]["validation/nDCG@5"] == [[0, 0.1], [1, 0.2], [2, 0.3], [3, 0.4]]


def test_the_same_seed_gives_the_same_weights(home: Path, make: Callable[[], Trainee]):
    first, second = make(), make()
    torch.manual_seed(99)  # what happened before must not matter
    assert run(first, never("first")) == run(second, never("second"))
    assert_same(first, second)


def test_a_batch_that_comes_again_and_again_is_learned(make: Callable[[], Trainee]):
    trainee, losses = make(), []
    for number in range(30):
        torch.manual_seed(number)
        losses.append(trainee.step(np.arange(12), 1.0, np.random.default_rng(0)))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_an_unreadable_state_starts_from_the_beginning(home: Path):
    checkpoint = Checkpoint("loop", "k", 0.0)
    with pytest.raises(KilledError):
        train(Killed(Scripted([0.1] * 9), step=4), DOCUMENTS, plan(3), checkpoint)
    (checkpoint._folder / "state.safetensors").write_bytes(b"x")
    trainee = Scripted([0.1] * 9)
    history = train(trainee, DOCUMENTS, plan(3), checkpoint)
    assert len(trainee.batches) == 9
    assert history["epochs"] == 3
