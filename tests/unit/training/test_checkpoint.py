"""Saved states: all of one, or none."""

import os
import resource
from pathlib import Path

import pytest
import torch

from xcflow.errors import BusyError, StorageError
from xcflow.training.checkpoint import Checkpoint

KEY = "0123456789abcdef0123"


def test_what_is_saved_comes_back(home: Path):
    tensors = {"a.b": torch.randn(3, 2), "empty": torch.empty(0, 4), "whole": torch.arange(3)}
    state = {"epoch": 2, "series": {"loss": [[1, 0.1], [2, float("nan")]]}, "recent": [1 / 3]}
    Checkpoint("train", KEY, 0.0).save(tensors, state)
    loaded = Checkpoint("train", KEY, 0.0).load()
    assert loaded is not None
    assert set(loaded[0]) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(loaded[0][name], tensor)
        assert loaded[0][name].dtype == tensor.dtype
    assert repr(loaded[1]) == repr(state)
    assert home in Checkpoint("train", KEY, 0.0)._folder.parents


def test_states_may_be_read_by_whom_the_umask_lets(home: Path):
    checkpoint = Checkpoint("train", KEY, 0.0)
    before = os.umask(0o027)
    try:
        checkpoint.keep({"a": torch.ones(1)}, 0)
        checkpoint.save({"a": torch.ones(1)}, {})
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in checkpoint._folder.iterdir()}
    assert modes == {"state.safetensors": "0o640", "best-0.safetensors": "0o640"}


def test_another_piece_of_work_has_a_state_of_its_own(home: Path):
    Checkpoint("train", KEY, 0.0).save({"a": torch.ones(1)}, {})
    assert Checkpoint("train", "f" * 20, 0.0).load() is None
    assert Checkpoint("other", KEY, 0.0).load() is None
    assert Checkpoint("train", KEY, 0.0).load() is not None


def test_the_last_state_counts(home: Path):
    checkpoint = Checkpoint("train", KEY, 0.0)
    for epoch in range(3):
        checkpoint.save({"a": torch.full((2,), float(epoch))}, {"epoch": epoch})
    loaded = checkpoint.load()
    assert loaded is not None
    assert (loaded[0]["a"].tolist(), loaded[1]) == ([2.0, 2.0], {"epoch": 2})


@pytest.mark.parametrize("content", [b"", b"no tensors", None])
def test_a_state_that_cannot_be_read_is_none(
    home: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
):
    checkpoint = Checkpoint("train", KEY, 0.0)
    checkpoint.save({"a": torch.ones(100)}, {})
    path = checkpoint._folder / "state.safetensors"
    path.write_bytes(path.read_bytes()[:150] if content is None else content)
    assert checkpoint.load() is None
    assert "starting from the beginning" in capsys.readouterr().err


def test_a_save_that_fails_is_told_once_and_leaves_the_state_before(
    home: Path, capsys: pytest.CaptureFixture[str]
):
    checkpoint = Checkpoint("train", KEY, 0.0)
    checkpoint.save({"a": torch.ones(1)}, {"epoch": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        for epoch in (2, 3):
            checkpoint.keep({"a": torch.full((10_000,), float(epoch))}, epoch)
            checkpoint.save({"a": torch.zeros(10_000)}, {"epoch": epoch})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {checkpoint._folder}: cannot be written: ")
    assert line.endswith("; training goes on without a newer checkpoint")
    loaded = checkpoint.load()
    assert loaded is not None
    assert loaded[1] == {"epoch": 1}
    assert [path.name for path in checkpoint._folder.iterdir()] == ["state.safetensors"]
    assert checkpoint.kept(3)["a"][0] == 3.0
    checkpoint.save({"a": torch.zeros(1)}, {"epoch": 4})
    again = Checkpoint("train", KEY, 0.0)
    assert again.load() is not None
    assert again.kept(3)["a"][0] == 3.0


def test_the_same_work_is_done_once_at_a_time(home: Path):
    with Checkpoint("train", KEY, 0.0).claimed() as checkpoint:
        checkpoint.save({"a": torch.ones(1)}, {})
        with pytest.raises(BusyError, match="another process trains just this"):
            Checkpoint("train", KEY, 0.0).claimed().__enter__()
        with Checkpoint("train", "f" * 20, 0.0).claimed():
            pass
        assert checkpoint.load() is not None
    assert list((home / "checkpoints").iterdir()) == []


def test_work_that_fails_keeps_its_state(home: Path):
    def fail() -> None:
        with Checkpoint("train", KEY, 0.0).claimed() as checkpoint:
            checkpoint.save({"a": torch.ones(1)}, {})
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert Checkpoint("train", KEY, 0.0).load() is not None


def test_the_best_model_stands_beside_the_state_that_goes_with_it(home: Path):
    checkpoint = Checkpoint("train", KEY, 0.0)
    for epoch in (-1, 0, 2):
        checkpoint.keep({"a": torch.full((2,), float(epoch))}, epoch)
    # Until a state is saved that knows better, an older one may ask for an older model.
    assert [float(checkpoint.kept(epoch)["a"][0]) for epoch in (-1, 0, 2)] == [-1.0, 0.0, 2.0]
    checkpoint.save({"a": torch.ones(1)}, {"best_epoch": 2})
    assert float(Checkpoint("train", KEY, 0.0).kept(2)["a"][0]) == 2.0
    Checkpoint("train", KEY, 0.0).save({"a": torch.ones(1)}, {"best_epoch": 2})
    assert float(checkpoint.kept(2)["a"][0]) == 2.0
    with pytest.raises(StorageError, match=r"best-0\.safetensors: cannot be read"):
        checkpoint.kept(0)


def test_a_best_model_that_the_disk_refuses_is_held_until_it_can_be_written(home: Path):
    checkpoint = Checkpoint("train", KEY, 0.0)
    checkpoint.save({"a": torch.ones(1)}, {"best_epoch": -1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    best = torch.rand(10_000)
    try:
        checkpoint.keep({"a": best}, 3)
        checkpoint.save({"a": torch.zeros(1)}, {"best_epoch": 3})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert torch.equal(checkpoint.kept(3)["a"], best)
    loaded = checkpoint.load()
    assert loaded is not None
    assert loaded[1] == {"best_epoch": -1}, "a state whose best model is nowhere was saved"
    checkpoint.save({"a": torch.zeros(1)}, {"best_epoch": 3})
    assert torch.equal(Checkpoint("train", KEY, 0.0).kept(3)["a"], best)


def test_finished_work_is_forgotten(home: Path):
    checkpoint = Checkpoint("train", KEY, 0.0)
    checkpoint.clear()
    checkpoint.save({"a": torch.ones(1)}, {})
    checkpoint.clear()
    assert checkpoint.load() is None
    assert not any(path.name.startswith("train") for path in (home / "checkpoints").iterdir())


def test_it_is_due_by_time(home: Path, monkeypatch: pytest.MonkeyPatch):
    clock = [100.0]
    monkeypatch.setattr("xcflow.training.checkpoint.time.monotonic", lambda: clock[0])
    checkpoint = Checkpoint("train", KEY, 60.0)
    clock[0] = 159.0
    assert not checkpoint.due()
    clock[0] = 160.0
    assert checkpoint.due()
    checkpoint.save({"a": torch.ones(1)}, {})
    assert not checkpoint.due()


def test_saving_takes_no_more_than_a_tenth_of_the_time(home: Path, monkeypatch: pytest.MonkeyPatch):
    clock = [100.0]

    def slow_disk(path: Path, *_: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        clock[0] += 30.0

    monkeypatch.setattr("xcflow.training.checkpoint.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("xcflow.training.checkpoint.write_tensors", slow_disk)
    checkpoint, asked = Checkpoint("train", KEY, 60.0), Checkpoint("asked", KEY, 0.0)
    for each in (checkpoint, asked):
        each.save({}, {})
    clock[0] += 200.0
    assert not checkpoint.due()
    assert asked.due()
    clock[0] += 100.0
    assert checkpoint.due()
