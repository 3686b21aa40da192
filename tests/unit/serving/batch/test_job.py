"""The job: goes on where it was ended, is one at a time, and keeps what stands there."""

import json
import shutil

import pytest

from xcflow.disk import claimed
from xcflow.errors import BusyError, ConfigError, DataError, StorageError
from xcflow.interruption import Interruption
from xcflow.serving.batch.job import Outcome

ROWS = [(f"d{i}", "x" * (i % 17)) for i in range(40)]  # six parts of six, one of four


@pytest.fixture
def source(tmp_path, write_rows):
    return write_rows(tmp_path / "in.jsonl", ROWS)


@pytest.fixture
def broken_off(source, tmp_path, small_parts, answer, LengthPredictor):
    """A job of which two parts are finished and a third one is begun."""

    class Ended(LengthPredictor):
        def top_k(self, texts, k, voice="fused"):
            if len(self.asked) == 16:
                raise Interruption(2)
            return super().top_k(texts, k)

    target = tmp_path / "out.jsonl"
    with pytest.raises(Interruption, match="type the same command again to go on"):
        answer(source, target, predictor=Ended())
    assert not target.exists()
    parts = {path.name for path in (tmp_path / ".out.jsonl.parts").iterdir()}
    assert parts == {"job.json", "000000.jsonl", "000001.jsonl"}
    return target


def test_it_goes_on_with_the_part_that_was_begun(
    broken_off, source, tmp_path, answer, capsys, LengthPredictor
):
    predictor = LengthPredictor()
    outcome = answer(source, broken_off, predictor=predictor)
    assert (outcome.texts, outcome.before) == (40, 12)
    assert predictor.asked == [text for _, text in ROWS[12:]]
    assert "12 texts were answered before: going on" in capsys.readouterr().err
    answer(source, tmp_path / "undisturbed.jsonl")
    assert broken_off.read_bytes() == (tmp_path / "undisturbed.jsonl").read_bytes()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"in.jsonl", "out.jsonl", "undisturbed.jsonl"}


@pytest.mark.parametrize("other", ["model", "k", "probability", "rows", "library"])
def test_another_job_starts_anew(
    broken_off, source, tmp_path, answer, monkeypatch, LengthPredictor, write_rows, other
):
    predictor = LengthPredictor("another" if other == "model" else "a model")
    if other == "rows":
        write_rows(source, [("new", "row"), *ROWS[1:]])
    if other == "library":
        monkeypatch.setattr("xcflow.serving.batch.job.library_digest", lambda: "another")
    k, least = 4 if other == "k" else 5, 0.3 if other == "probability" else 0.0
    assert answer(source, broken_off, k, least, predictor).before == 0
    assert len(predictor.asked) == 40
    answer(source, tmp_path / "undisturbed.jsonl", k, least)
    assert broken_off.read_bytes() == (tmp_path / "undisturbed.jsonl").read_bytes()


def test_the_same_rows_elsewhere_are_the_same_job(broken_off, tmp_path, answer, write_rows):
    assert answer(write_rows(tmp_path / "moved.csv.gz", ROWS), broken_off).before == 12


def test_a_damaged_state_is_another_job(broken_off, source, tmp_path, answer):
    (tmp_path / ".out.jsonl.parts" / "job.json").write_text("{")
    assert answer(source, broken_off).before == 0


def test_after_a_gap_parts_are_written_again(broken_off, source, tmp_path, answer):
    (tmp_path / ".out.jsonl.parts" / "000000.jsonl").unlink()
    assert answer(source, broken_off).before == 0
    assert [json.loads(line)["id"] for line in broken_off.read_text().splitlines()] == [
        row[0] for row in ROWS
    ]


def test_an_input_that_changes_meanwhile_is_refused(
    source, tmp_path, small_parts, answer, LengthPredictor, write_rows
):
    class Meanwhile(LengthPredictor):
        def top_k(self, texts, k, voice="fused"):
            if len(self.asked) == 14:
                shutil.copy(source, tmp_path / "copy.jsonl")
                (tmp_path / "copy.jsonl").replace(source)
            return super().top_k(texts, k)

    with pytest.raises(DataError, match=r"in\.jsonl: was changed while it was read: start again"):
        answer(source, tmp_path / "out.jsonl", predictor=Meanwhile())
    assert answer(source, tmp_path / "out.jsonl").before == 12


def test_two_at_once(tmp_path, source, answer):
    target = tmp_path / "out.jsonl"
    with claimed(target), pytest.raises(BusyError, match=r"out\.jsonl: is being written by anot"):
        answer(source, target)
    (tmp_path / ".out.jsonl.partial-1").write_text("left by a process that was killed")
    assert answer(source, target).texts == 40
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl"}


def test_an_older_output_stays_when_the_new_one_fails(tmp_path, answer):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("nonsense")
    target.write_text("before")
    with pytest.raises(DataError):
        answer(source, target)
    assert target.read_text() == "before"


def test_an_output_that_cannot_be_written_is_named(tmp_path, source, answer):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        answer(source, tmp_path / "file" / "out.jsonl")


def test_a_folder_is_no_file_to_write(tmp_path, source, answer):
    (tmp_path / "out.jsonl").mkdir()
    with pytest.raises(StorageError, match="a folder stands where a file is needed"):
        answer(source, tmp_path / "out.jsonl")


def test_what_cannot_be_is_refused_at_once(tmp_path, source, answer):
    with pytest.raises(ConfigError, match=r"nothing\.csv: no such file"):
        answer(tmp_path / "nothing.csv", tmp_path / "out.csv")
    (tmp_path / "link.jsonl").symlink_to(source)
    with pytest.raises(ConfigError, match=r"link\.jsonl: is the input too: choose another"):
        answer(source, tmp_path / "link.jsonl")


def test_the_last_line_tells_count_time_and_rate():
    assert str(Outcome(40_000, 0, 4.0)) == "40,000 texts answered in 4.0 s, 10,000 texts/s"
    said = "40,000 texts answered, 10,000 of them now in 4.0 s, 2,500 texts/s"
    assert str(Outcome(40_000, 30_000, 4.0)) == said
    assert str(Outcome(0, 0, 0.0)).endswith("in 0.0 s, 0 texts/s")
