"""Rankings that ranks found apart, put together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xcflow.distributed.collectives import dealt_rows, stacked
from xcflow.distributed.world import World
from xcflow.topk import NO_LABEL, TopK


def best_of_ranks(world: World, top: TopK, labels: NDArray[np.integer[Any]] | None = None) -> TopK:
    """The best labels of the same documents, of which each rank searched its own.

    Args:
        world: The ranks.
        top: [N, k] the best of this rank's labels, by their place among these.
        labels: Label rows of this rank's labels; without them those that were dealt to it.

    Returns:
        [N, k] the best label rows of all.
    """
    if world.alone:
        return top
    rows = (
        top.labels * world.size + world.rank
        if labels is None
        else np.append(labels, NO_LABEL)[top.labels]
    )
    own = np.where(top.labels == NO_LABEL, NO_LABEL, rows).astype(np.int32)
    parts = [stacked(world, torch.from_numpy(part)) for part in (own, top.scores)]
    every, scores = (part.transpose(0, 1).flatten(1).numpy() for part in parts)
    order = np.lexsort((every, -scores))[:, : top.labels.shape[1]]
    return TopK(*(np.take_along_axis(part, order, axis=1) for part in (every, scores)))


def rankings_of_ranks(world: World, top: TopK, documents: int) -> TopK:
    """[documents, k] all rankings, of which each rank brings those dealt to it."""
    if world.alone:
        return top
    return TopK(*(dealt_rows(world, torch.from_numpy(part), documents).numpy() for part in top))
