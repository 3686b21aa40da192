"""Several ranks learn what one process learns from the same global batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from xcflow.distributed.collectives import blocks_at_first
from xcflow.distributed.world import ALONE, World
from xcflow.errors import StorageError
from xcflow.training.checkpoint import Checkpoint
from xcflow.training.loop import Plan, Trainee, train

DOCUMENTS = 36
ENCODERS = {
    "bag": {},
    "bag, one way": {"two_way": False},
    "bag, triplet": {"loss": "triplet", "hardest": 3},
    "bag, triplet, one way": {"loss": "triplet", "hardest": 40, "two_way": False},
    "bag, NGAME's code": {"loss": "triplet", "hardest": 40, "keep_zero_hinge": True},
    "bag, no auxiliary vectors": {"clusters": 0},
    "transformer": {"kind": "transformer"},
    "both": {"kind": "transformer_with_bag", "bags": 2},
}
CLASSIFIERS = {
    "mined": {"mine_every": 2},
    "not mined": {"mined": 0},
    "triplet": {"loss": "triplet", "hardest": 4},
    "triplet, all negatives": {"loss": "triplet", "hardest": 40, "mine_every": 1},
    "with dropout": {"dropout": 0.5},
}


def whole(trainee: Trainee, world: World) -> dict[str, NDArray[Any]]:
    """The state with all of what is dealt, at the first rank."""
    dealt = trainee.dealt()
    return {
        name: np.concatenate([*blocks_at_first(world, tensor, dealt[name], block=5)] or [tensor])
        if name in dealt
        else tensor.numpy().copy()
        for name, tensor in trainee.state(training=True).items()
    }


def trained(trainee: Trainee, world: World, batch: int, epochs: int) -> dict[str, Any]:
    """Losses of all steps, metrics of all epochs and the state after a few epochs."""
    plan = Plan("testing", epochs, batch, 2, 99, seed=3)
    checkpoint = Checkpoint("ranks", "never", 1e9, world=world)
    with checkpoint.claimed():
        history = train(trainee, DOCUMENTS, plan, checkpoint, world)
    return {"history": history, "state": whole(trainee, world)}


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    series, wanted = found["history"].pop("series"), expected["history"].pop("series")
    assert found["history"] == expected["history"]
    for name, points in wanted.items():
        np.testing.assert_allclose(series[name], points, rtol=1e-4, atol=1e-5, err_msg=name)
    for name, array in expected["state"].items():
        # A key's bias changes no attention: its gradient is rounding, which Adam makes large.
        atol = 1e-2 if name.endswith("key.bias") else 2e-4
        np.testing.assert_allclose(found["state"][name], array, 2e-3, atol, err_msg=name)


@pytest.fixture(scope="session")
def make(make_module_one, make_module_two) -> Callable[..., Trainee]:
    """A module by the name of its settings, in any world, without dropout in Module I."""

    def make(name: str, world: World) -> Trainee:
        if name in CLASSIFIERS:
            return make_module_two(world=world, **CLASSIFIERS[name])
        return make_module_one(world=world, dropout=0.0, **ENCODERS[name])

    return make


@pytest.mark.parametrize(
    ("size", "batch", "names"),
    [
        (2, 9, [*ENCODERS, *CLASSIFIERS]),
        # Batches that not every rank has a document, a candidate or even a text of.
        (3, 1, ["bag", "transformer", "mined"]),
        (5, 3, ["bag, triplet", "both", "triplet, all negatives"]),
    ],
)
def test_ranks_learn_what_one_process_learns(
    home: Path,
    run_ranks: Callable[..., list[Any]],
    make: Callable[..., Trainee],
    size: int,
    batch: int,
    names: list[str],
):
    def learned(world: World) -> dict[str, dict[str, Any]]:
        return {name: trained(make(name, world), world, batch, epochs=2) for name in names}

    alone, found = learned(ALONE), run_ranks(size, learned)
    for name in names:
        assert_close(found[0][name], alone[name])


class KilledError(Exception):
    """Stands for the end of the processes."""


class Killed:
    """A trainee that dies before a certain step."""

    def __init__(self, trainee: Trainee, steps: int) -> None:
        self._trainee = trainee
        self._left = steps

    def __getattr__(self, name: str) -> Any:
        if name == "step":
            self._left -= 1
            if self._left < 0:
                raise KilledError
        return getattr(self._trainee, name)


@pytest.mark.parametrize("name", ["both", "mined"])
def test_another_number_of_ranks_goes_on_from_a_checkpoint(
    home: Path, run_ranks: Callable[..., list[Any]], make: Callable[..., Trainee], name: str
):
    """Three begin, two go on, and one ends it, in the middle of epochs and after a best one."""
    plan = Plan("testing", 3, 9, 2, 99, seed=3)

    def learn(world: World, key: str, steps: int) -> dict[str, Any]:
        checkpoint = Checkpoint("ranks", key, 0.0, world=world)
        trainee = make(name, world)
        history = train(Killed(trainee, steps), DOCUMENTS, plan, checkpoint, world)
        return {"history": history, "state": whole(trainee, world)}

    def killed(world: World, steps: int) -> str:
        with pytest.raises(KilledError):
            learn(world, "moved", steps)
        return "killed"

    assert run_ranks(3, lambda world: killed(world, 6)) == 3 * ["killed"]
    assert run_ranks(2, lambda world: killed(world, 4)) == 2 * ["killed"]
    assert_close(learn(ALONE, "moved", 2), learn(ALONE, "undisturbed", 12))


def test_a_checkpoint_of_ranks_is_that_of_one_process(
    home: Path, run_ranks: Callable[..., list[Any]], make: Callable[..., Trainee]
):
    """Which holds their memory: the first one need not be able to hold all."""

    def save(world: World) -> None:
        trainee = make("both", world)
        checkpoint = Checkpoint("ranks", str(world.size), 0.0, world=world)
        checkpoint.save(trainee.state(training=True), {"step": 4}, trainee.dealt())

    run_ranks(3, save)
    save(ALONE)
    (mine, state), (theirs, other) = (
        Checkpoint("ranks", key, 0.0).load() or ({}, {}) for key in ("1", "3")
    )
    assert state == other == {"step": 4}
    assert set(mine) == set(theirs)
    for key, tensor in mine.items():
        np.testing.assert_array_equal(theirs[key].numpy(), tensor.numpy(), err_msg=key)


def test_ranks_hold_the_same_dense_weights_and_each_its_classifiers(
    home: Path, run_ranks: Callable[..., list[Any]], make: Callable[..., Trainee]
):
    def held(world: World) -> tuple[dict[str, NDArray[Any]], dict[str, int]]:
        encoder, classifiers = make("both", world), make("mined", world)
        trained(encoder, world, 9, epochs=1)
        tensors = classifiers.state(training=True)
        sizes = {name: tensors[name].nbytes for name in classifiers.dealt()}
        state = encoder.state(training=False)
        return {name: tensor.numpy() for name, tensor in state.items()}, sizes

    (first, _), (second, _) = ranks = run_ranks(2, held)
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array, err_msg=name)
    alone = held(ALONE)[1]
    for name, size in alone.items():
        shares = [sizes[name] for _, sizes in ranks]
        assert sum(shares) == size
        assert max(shares) - min(shares) <= size // 11  # a row of the eleven


def test_a_checkpoint_that_cannot_be_written_holds_nobody_up(
    home: Path, run_ranks: Callable[..., list[Any]], make: Callable[..., Trainee]
):
    home.mkdir()
    (home / "checkpoints").write_text("in the way")

    def save(world: World) -> str:
        trainee = make("mined", world)
        checkpoint = Checkpoint("ranks", "blocked", 0.0, world=world)
        checkpoint.save(trainee.state(training=True), {"step": 4}, trainee.dealt())
        try:
            checkpoint.keep(trainee.state(training=False), 0, trainee.dealt())
        except StorageError as error:
            return str(error)
        return ""

    first, second = run_ranks(2, save)
    assert "a file stands where a folder is needed" in first
    assert second == ""
