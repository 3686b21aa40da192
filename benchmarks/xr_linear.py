"""Train and ask XR-Linear (PECOS), in an environment of its own: it needs an older numpy.

    python xr_linear.py train FOLDER      reads features.npz and labels.npz, writes model/
    python xr_linear.py predict FOLDER K  reads queries.npz and model/, writes answers.npz

``peers.py`` starts it. The environment, which needs none of xcflow's packages:

    python -m venv PECOS
    PECOS/bin/pip install --no-deps libpecos
    PECOS/bin/pip install 'numpy<2' 'scipy<1.14' 'scikit-learn<1.6'
"""

from __future__ import annotations

import sys
from pathlib import Path

from pecos.xmc import Indexer, LabelEmbeddingFactory
from pecos.xmc.xlinear.model import XLinearModel
from scipy import sparse

# The command line of PECOS takes 10, too few for a recall at 100; wider answers are no worse.
BEAM = 50


def train(folder: Path) -> None:
    """Labels into a tree by their documents' mean (PIFA), then a ranker in each node."""
    features = sparse.load_npz(folder / "features.npz")
    labels = sparse.load_npz(folder / "labels.npz")
    chain = Indexer.gen(LabelEmbeddingFactory.create(labels, features))
    XLinearModel.train(features, labels, C=chain).save(str(folder / "model"))


def predict(folder: Path, k: int) -> None:
    """The ``k`` best labels of each query, as a sparse matrix of scores."""
    model = XLinearModel.load(str(folder / "model"))
    queries = sparse.load_npz(folder / "queries.npz")
    answers = model.predict(queries, only_topk=k, beam_size=BEAM)
    sparse.save_npz(folder / "answers.npz", answers)


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(Path(sys.argv[2]))
    else:
        predict(Path(sys.argv[2]), int(sys.argv[3]))
