"""The baselines."""

from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer

from xcflow.config import EncoderConfig
from xcflow.encoders.build import initial_encoder
from xcflow.evaluation import baselines
from xcflow.evaluation.baselines import UntrainedBaseline
from xcflow.pretrained import model_folder
from xcflow.ragged import Ragged
from xcflow.topk import NO_LABEL


@pytest.mark.parametrize("kind", ["bag_of_embeddings", "transformer"])
def test_the_untrained_encoder_ranks_by_the_cosine_of_its_vectors(make_dataset, monkeypatch, kind):
    file = model_folder("minilm") / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()

    def tokens(texts):
        encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
        return Ragged.from_rows([e.ids for e in encoded], np.uint16)

    names = ["a red car", "a blue boat", "shared library for audio", "game of chess"]
    dataset = make_dataset(names, [[0], [1]], [[0]])
    dataset = replace(
        dataset,
        labels=replace(dataset.labels, tokens=tokens(names)),
        train=replace(dataset.train, tokens=tokens(["red boats", "chess"])),
        tokenizer_file=file,
    )
    monkeypatch.setattr(baselines, "ENCODE_BLOCK", 3)
    config = EncoderConfig(kind=kind, layers=2 if kind == "transformer" else 0, bf16="off")
    queries = tokens(["chess game", "sound library", "a red car"])
    top = UntrainedBaseline(dataset, config).top_k(queries, 6)

    encoder = initial_encoder(config, dataset)
    labels = encoder.encode(tokens(names)).half().float()  # kept in half precision
    cosine = (encoder.encode(queries) @ labels.T).numpy()
    assert top.labels[:, 0].tolist() == [3, 2, 0]
    assert (top.labels[:, 4:] == NO_LABEL).all()
    np.testing.assert_array_equal(top.labels[:, :4], np.argsort(-cosine, axis=1))
    np.testing.assert_allclose(top.scores[:, :4], -np.sort(-cosine, axis=1), atol=1e-5)
