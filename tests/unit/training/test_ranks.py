"""Several ranks learn what one process learns from the same global batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from xcflow.distributed.collectives import blocks_at_first
from xcflow.distributed.world import ALONE, World
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
    """The state with all rows of what is dealt, at the first rank."""
    dealt = trainee.dealt()
    return {
        name: np.concatenate([tensor[:0], *blocks_at_first(world, tensor, dealt[name], block=5)])
        if name in dealt
        else tensor.numpy().copy()
        for name, tensor in trainee.state(training=True).items()
    }


def trained(trainee: Trainee, world: World, batch: int, epochs: int) -> dict[str, Any]:
    """Losses of all steps, metrics of all epochs and the state after a few epochs."""
    plan = Plan("testing", epochs, batch, 2, 99, seed=3)
    checkpoint = Checkpoint("ranks", "never", 1e9, world)
    with checkpoint.claimed():
        history = train(trainee, DOCUMENTS, plan, checkpoint, world)
    return {"history": history, "state": whole(trainee, world)}


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    series, wanted = found["history"].pop("series"), expected["history"].pop("series")
    assert found["history"] == expected["history"]
    for name, points in wanted.items():
        np.testing.assert_allclose(series[name], points, rtol=1e-4, atol=1e-5, err_msg=name)
    for name, array in expected["state"].items():
        np.testing.assert_allclose(found["state"][name], array, rtol=2e-3, atol=2e-4, err_msg=name)


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
