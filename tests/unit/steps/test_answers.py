"""Answers of a bundle that the steps made, one by one and by the batch job."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xcflow.serving.answers import best_labels
from xcflow_pipelines import shell
from xcflow_pipelines.cli import app

TEXTS = ["amber goat w", "koala", "", "ebony ibis y x", "no such words", "zebra 斑马", "black"]


def test_the_best_labels_are_those_of_the_predictor(model: Any):
    predictor = model.predictor()
    top = predictor.top_k(TEXTS, 4)
    likely = predictor.probabilities(top.scores)
    answers = best_labels(predictor, TEXTS, 4)
    for answer, labels, scores, probabilities in zip(answers, *top, likely, strict=True):
        assert [label["id"] for label in answer] == [f"l{x}" for x in labels]
        np.testing.assert_allclose([label["score"] for label in answer], scores, atol=1e-6)
        np.testing.assert_allclose([x["probability"] for x in answer], probabilities, atol=1e-4)


def test_there_may_be_fewer_labels_and_none(model: Any):
    predictor = model.predictor()
    assert [len(answer) for answer in best_labels(predictor, TEXTS, 50)] == [12] * len(TEXTS)
    likely = best_labels(predictor, TEXTS, 50, 0.5)
    everything = best_labels(predictor, TEXTS, 50)
    for some, answer in zip(likely, everything, strict=True):
        assert some == [label for label in answer if label["probability"] >= 0.5]
    assert best_labels(predictor, TEXTS, 50, 1.1) == [[]] * len(TEXTS)
    assert best_labels(predictor, [], 5) == []


def test_a_file_gets_the_answers_of_its_texts(
    model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [{"id": f"d{i}", "text": text} for i, text in enumerate(TEXTS)]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["predict", "--input", str(source), "--output", str(target), "-k", "3"]
    command += ["--model", str(model.bundle), "--home", str(tmp_path / "home")]
    assert shell.guarded(lambda: app(command, standalone_mode=False)) == shell.OK
    said = capsys.readouterr()
    assert re.fullmatch(
        rf"7 texts answered in \d+\.\d s, [\d,]+ texts/s: {re.escape(str(target))}\n", said.out
    )
    assert "answering: 7 texts in" in said.err
    answers = [json.loads(line) for line in target.read_text().splitlines()]
    assert answers == [
        {"id": row["id"], "labels": labels}
        for row, labels in zip(rows, best_labels(model.predictor(), TEXTS, 3), strict=True)
    ]
    assert shell.guarded(lambda: app([*command, "--json"], standalone_mode=False)) == shell.OK
    outcome = json.loads(capsys.readouterr().out)
    assert outcome.pop("seconds") > 0
    assert outcome == {"texts": 7, "before": 0, "output": str(target)}
