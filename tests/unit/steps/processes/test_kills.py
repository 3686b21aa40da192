"""Steps that are killed, at any moment, end with the bytes of an undisturbed run."""

import random

import pytest

from xcflow.steps import RETRAINING

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CHAIN = [name for name in RETRAINING if name != "promote_model"]
KINDS = ("bag_of_embeddings", "transformer", "transformer_with_bag")
TRAINED = ("train_encoder", "train_classifier")


def test_a_second_run_elsewhere_writes_the_same_bytes(lives, tmp_path):
    life = lives(KINDS[0])
    for step in CHAIN:
        place = tmp_path / step
        life.zygote.finish(*life.command(step, place))
        life.check(step, place)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", TRAINED)
def test_training_is_killed_again_and_again(lives, tmp_path, kind, step):
    life, draw = lives(kind), random.Random(f"{kind} {step}")
    command, events = life.command(step, tmp_path), life.events[step]
    kills = [events // 2, *(draw.randint(events // 4, events) for _ in range(3))]
    done = [life.zygote.run(*command, at=kill_at) for kill_at in kills]
    done.append(life.zygote.finish(*command))
    assert done[0].killed
    assert "going on from epoch" in done[1].said
    life.check(step, tmp_path)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("step", ["train_classifier", "gate_model"])
def test_a_kill_between_any_two_writes_of_the_end(lives, tmp_path, step, before):
    """Also where an output stood there: between two renames there is none for a moment."""
    life = lives(KINDS[0])
    for kill_at in range(max(1, life.events[step] - 7), life.events[step] + 1):
        place = tmp_path / str(kill_at)
        command = life.command(step, place)
        if before:
            life.zygote.finish(*command)
        assert life.zygote.run(*command, at=kill_at).killed
        life.zygote.finish(*command)
        life.check(step, place)


@pytest.mark.parametrize("step", [step for step in CHAIN if step not in TRAINED])
def test_a_kill_between_any_other_writes(lives, tmp_path, step):
    life, draw = lives(KINDS[0]), random.Random(step)
    command = life.command(step, tmp_path)
    for kill_at in draw.sample(range(1, life.events[step]), 3):
        assert life.zygote.run(*command, at=kill_at).killed
    life.zygote.finish(*command)
    life.check(step, tmp_path)


@pytest.mark.parametrize("step", CHAIN)
def test_a_kill_after_any_time(lives, tmp_path, step):
    life, draw = lives(KINDS[-1]), random.Random(step)
    command = life.command(step, tmp_path)
    for _ in range(2):
        life.zygote.run(*command, kill_after=draw.random() * life.seconds[step])
    life.zygote.finish(*command)
    life.check(step, tmp_path)


def test_an_output_that_was_moved_away_comes_back(lives, tmp_path):
    """A step that fails after such a kill leaves the output of the run before."""
    life = lives(KINDS[0])
    command = life.command("gate_model", tmp_path)
    life.zygote.finish(*command)
    (tmp_path / "output").rename(tmp_path / ".output.old-1")
    bundle = f"evaluation={life.folders['bundle']}"
    wrong = [bundle if part.startswith("evaluation=") else part for part in command]
    assert life.zygote.run(*wrong).code == 1
    life.check("gate_model", tmp_path)
