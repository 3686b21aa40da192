"""The typed configuration: what is read, what is refused, and what identifies it."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from xcflow.config import Config, profile_names, profile_text
from xcflow.errors import ConfigError


def test_the_tree_survives_plain_values_and_json():
    config = Config.from_dict({"run": {"seed": 7}, "evaluation": {"ks": [1, 2]}})
    assert Config.from_dict(config.to_dict()) == config
    assert Config.from_json(config.to_json()) == config
    assert config.evaluation.ks == (1, 2)
    assert set(config.to_dict()) == {f.name for f in dataclasses.fields(Config)}


def test_some_sections_as_json_are_completed_by_defaults():
    config = Config.from_dict({"run": {"seed": 7}, "fusion": {"steps": 3}})
    text = config.to_json(["run"])
    assert json.loads(text) == {"run": {"seed": 7, "threads": 0}}
    assert Config.from_json(text) == Config.from_dict({"run": {"seed": 7}})


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_loads(name: str):
    config = Config.load(name)
    assert config.gate.secondary
    assert profile_text(name).startswith("# ")


def test_there_is_a_quick_profile():
    assert "quick" in profile_names()


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"encodr": {}}, "here: unknown section encodr, did you mean encoder?"),
        ({"module_one": {"epoch": 1}}, "here: unknown key module_one.epoch, did you mean module_"),
        (
            {"resources": {"other": {"memry": "1Gi"}}},
            "here: unknown key resources.other.memry, did you mean resources.other.memory?",
        ),
        ({"": {}}, "here: unknown section "),
        ({"run": 3}, "here: run is a section, not a value"),
        ({"run": {"seed": "1"}}, "here: run.seed must be of type int, not '1'"),
        ({"run": {"seed": 1.0}}, "here: run.seed must be of type int, not 1.0"),
        ({"run": {"seed": True}}, "here: run.seed must be of type int, not True"),
        ({"run": {"seed": [1]}}, r"here: run.seed must be of type int, not \[1\]"),
        ({"fusion": {"rate": "x"}}, "here: fusion.rate must be of type float, not 'x'"),
        ({"fusion": {"rate": True}}, "here: fusion.rate must be of type float, not True"),
        ({"encoder": {"model": 1}}, "here: encoder.model must be of type str, not 1"),
        (
            {"encoder": {"kind": "lstm"}},
            "here: encoder.kind must be one of bag_of_embeddings, .*, not 'lstm'",
        ),
        ({"module_one": {"two_way": 1}}, "here: module_one.two_way must be of type bool, not 1"),
        ({"evaluation": {"ks": 5}}, "here: evaluation.ks must be a list, not 5"),
        ({"evaluation": {"ks": [1, "5"]}}, "here: evaluation.ks must be of type int, not '5'"),
        ({"run": {"seed": -1}}, "here: run.seed must not be negative, it is -1"),
        ({"resources": {"other": {"cpu": "half"}}}, "cpu must be a number of cores such as 2 or"),
        ({"resources": {"other": {"cpu": ""}}}, "cpu must be a number of cores .*, not ''"),
        (
            {"resources": {"other": {"memory": "64GB"}}},
            "memory must be a size such as 4Gi, not '64",
        ),
        (
            {"resources": {"other": {"accelerator": "", "accelerators": 1}}},
            "resources: accelerators needs accelerator",
        ),
        ({"cluster": {"image": "one two"}}, "cluster.image is no name of one: 'one two'"),
    ],
)
def test_what_is_wrong_is_named(tree: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        Config.from_dict(tree, "here")


def test_a_whole_number_stands_for_a_float():
    config = Config.from_dict({"checkpoint": {"every_seconds": 5}})
    assert isinstance(config.checkpoint.every_seconds, float)
    assert config.digest() == Config.from_dict({"checkpoint": {"every_seconds": 5.0}}).digest()


@pytest.mark.parametrize(
    "override",
    [
        "data.max_document_tokens=2",
        "data.validation_fraction=0",
        "data.validation_fraction=0.6",
        "data.validation_fraction=nan",
        "data.catalogue_words=-1",
        "data.validation_documents=0",
        "encoder.dropout=1.0",
        "clustering.clusters=-1",
        "clustering.max_rounds=0",
        "module_one.batch_size=0",
        "module_one.learning_rate=-0.1",
        "module_one.learning_rate=nan",
        "module_one.dense_learning_rate=inf",
        "module_one.auxiliary_learning_rate=-1",
        "module_one.warmup_steps=-1",
        "module_one.double_every=-1",
        "module_one.patience=0",
        "module_one.temperature=0.0",
        "module_two.warmup_steps=-1",
        "module_two.learning_rate=nan",
        "module_two.mined_per_batch=-1",
        "module_two.mine_every=0",
        "retrieval.ivf_probe=0.0",
        "retrieval.flat_limit=-1",
        "retrieval.recall_queries=0",
        "fusion.neighbours=0",
        "fusion.steps=-1",
        "fusion.rate=nan",
        "checkpoint.every_seconds=-1",
        "evaluation.ks=[]",
        "evaluation.ks=[5, 1]",
        "gate.alpha=0.5",
        "gate.primary=F1",
        "tracking.experiment=",
        "tracking.model_name=",
        "tracking.model_name=search/german",
        "tracking.model_name=l'été",
        "validation.max_empty_texts=1.5",
    ],
)
def test_values_with_which_nothing_can_work_are_refused(override: str):
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        Config.load("quick", [override])


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("run.seed=12", "run.seed", 12),
        (" run.seed = 12 ", "run.seed", 12),
        ("fusion.rate=1e-3", "fusion.rate", 0.001),
        ("encoder.kind=transformer", "encoder.kind", "transformer"),
        ('encoder.model="a b"', "encoder.model", "a b"),
        ("encoder.model=org/name-v4", "encoder.model", "org/name-v4"),
        ("encoder.model=a=b", "encoder.model", "a=b"),
        ("tracking.uri=", "tracking.uri", ""),
        ("module_one.two_way=false", "module_one.two_way", False),
        ("evaluation.ks=[1, 5, 10, 100]", "evaluation.ks", (1, 5, 10, 100)),
        ("resources.train_encoder.cpu='8'", "resources.train_encoder.cpu", "8"),
    ],
)
def test_overrides(override: str, path: str, value: object):
    found: object = Config.load("quick", [override])
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_the_last_override_counts():
    assert Config.load("quick", ["run.seed=3", "run.seed=4"]).run.seed == 4


@pytest.mark.parametrize("override", ["run.seed", "seed=1", "=1", ".seed=1", "run.=1", ""])
def test_an_override_of_another_form_is_refused(override: str):
    with pytest.raises(ConfigError, match=r"expected section\.key=value"):
        Config.load("quick", [override])


def test_an_override_cannot_go_below_a_value():
    with pytest.raises(ConfigError, match="seed is a value, not a section"):
        Config.load("quick", ["run.seed=1", "run.seed.deep=1"])


def test_a_file_of_ones_own(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text("[run]\nseed = 5\n[gate]\nmargin = 0.25\n")
    config = Config.load(path, ["run.threads=2"])
    assert (config.run.seed, config.run.threads) == (5, 2)
    # What the file leaves open comes from the gate's own file, not from the code's defaults.
    assert config.gate == dataclasses.replace(Config.load("quick").gate, margin=0.25)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[run\n", "not valid TOML"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"[run]\nsed = 1\n", "mine.toml: unknown key run.sed, did you mean run.seed?"),
        (b"gate = 3\n", "mine.toml: gate is a section, not a value"),
    ],
)
def test_a_wrong_file_is_named(content: bytes, message: str, tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        Config.load(path)


def test_a_missing_profile(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"no profile named 'fast': known are .*quick"):
        Config.load("fast")
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        Config.load(tmp_path / "none.toml")


def test_the_gate_can_only_ask_for_what_is_measured():
    with pytest.raises(ConfigError, match=r"the gate asks for P@7, so evaluation.ks must hold 7"):
        Config.load("quick", ["gate.primary=P@7"])


def test_the_digest_is_that_of_the_canonical_json():
    config = Config()
    canonical = '{"run":{"seed":1,"threads":0}}'
    assert config.digest("run") == hashlib.sha256(canonical.encode()).hexdigest()
    whole = json.dumps(config.to_dict(), sort_keys=True, separators=(",", ":"))
    assert config.digest() == hashlib.sha256(whole.encode()).hexdigest()


def test_the_digest_sees_just_the_named_sections():
    before, after = Config(), Config.from_dict({"fusion": {"steps": 1}})
    assert before.digest("run", "data") == after.digest("run", "data")
    assert before.digest("run", "data") == before.digest("data", "run")
    assert before.digest("fusion") != after.digest("fusion")
    assert before.digest() != after.digest()
