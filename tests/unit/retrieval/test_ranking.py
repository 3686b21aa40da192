"""The best of scored rows against sorting each by itself."""

import numpy as np

from xcflow.ragged import Ragged
from xcflow.retrieval.ranking import top_of_rows
from xcflow.topk import NO_LABEL


def test_the_best_of_ragged_rows():
    rng = np.random.default_rng(0)
    for _ in range(30):
        rows = [rng.choice(20, int(rng.integers(0, 6)), replace=False).tolist() for _ in range(4)]
        ragged = Ragged.from_rows(rows)
        scores = rng.integers(0, 3, len(ragged.data)).astype(np.float32)
        top = top_of_rows(ragged, scores, 3)
        for i, row in enumerate(rows):
            own = scores[ragged.offsets[i] : ragged.offsets[i + 1]].tolist()
            best = sorted(zip(row, own, strict=True), key=lambda pair: -pair[1])[:3]
            best += [(NO_LABEL, -np.inf)] * (3 - len(best))
            assert list(zip(top.labels[i].tolist(), top.scores[i].tolist(), strict=True)) == best
