"""The memory of a job does not grow with its texts."""

import tracemalloc

import pytest

from xcflow.serving.batch import rows_in


@pytest.mark.parametrize("ending", [".jsonl", ".csv.gz"])
def test_eight_times_as_many_texts_take_no_more(
    tmp_path, monkeypatch, answer, write_rows, LengthPredictor, ending
):
    monkeypatch.setattr(rows_in, "BATCH_TEXTS", 50)

    class Forgetful(LengthPredictor):
        def top_k(self, texts, k, voice="fused"):
            self.asked = []
            return super().top_k(texts, k)

    def peak(texts):
        rows = ((f"d{i}", "x" * (i % 97)) for i in range(texts))
        source = write_rows(tmp_path / f"in{ending}", rows)
        tracemalloc.start()
        try:
            answer(source, tmp_path / f"out{ending}", 3, predictor=Forgetful())
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # what is imported late
    assert peak(8_000) < 1.2 * peak(1_000)
