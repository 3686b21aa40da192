"""A sweep's file: its combinations, and every way in which it can be wrong."""

import pytest

from xcflow.errors import ConfigError
from xcflow_pipelines.sweep_plan import read_plan


@pytest.fixture
def plan(tmp_path):
    def read(text):
        path = tmp_path / "clusters.toml"
        path.write_text(text)
        return read_plan(path)

    return read


def test_all_combinations_are_whole_configurations_that_promote_nothing(plan):
    found = plan(
        """
        profile = "full"
        data = "somewhere"
        [set]
        run.threads = 2
        [grid]
        "clustering.clusters" = [0, 1024, 4096]
        run.seed = [1, 2]
        """
    )
    assert (found.name, found.data) == ("clusters", "somewhere")
    assert found.keys == ("clustering.clusters",)
    chosen = [tuple(c.values.values()) for c in found.combinations]
    assert chosen == [(0, 1), (0, 2), (1024, 1), (1024, 2), (4096, 1), (4096, 2)]
    for combination in found.combinations:
        config = combination.config
        assert config.clustering.clusters == combination.values["clustering.clusters"]
        assert config.run.seed == combination.values["run.seed"]
        assert config.run.threads == 2
        assert config.encoder.bags == 2
        assert not config.gate.promote
    assert len({c.setting for c in found.combinations}) == 3


@pytest.mark.parametrize(
    ("grid", "key"),
    [
        ('"module_one.loss" = ["triplet", "softmax"]\n"fusion.muted" = [1, 2]', "fusion.muted"),
        ('"module_one.two_way" = [true, false]', None),
        ('"run.seed" = [1, 2]', None),
        ('"evaluation.ks" = [[1, 5, 10, 100], [1, 3, 5, 10, 100]]', None),
        ('"module_one.margin" = [0, 0.3]', "module_one.margin"),
    ],
)
def test_the_numeric_key_is_the_first_of_numbers_that_is_not_the_seed(plan, grid, key):
    assert plan(f"[grid]\n{grid}").numeric_key == key


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the grid is empty"),
        ("[grid]", "the grid is empty"),
        ("grid = 3", "grid must be a table, not 3"),
        ('[grid]\n"run.seed" = 3', "grid: run.seed must be a list of values, not 3"),
        ('[grid]\n"run.seed" = []', "grid: run.seed must be a list of values"),
        ('[grid]\n"run.seed" = [1, 2, 1]', "grid: run.seed names 1 twice"),
        ("[grid]\nseed = [1]", "grid: seed: expected section.key"),
        ('[grid]\n"run.sed" = [1]', "unknown key run.sed, did you mean run.seed?"),
        ('[set]\n"run.sed" = 1\n[grid]\n"run.seed" = [1]', "did you mean run.seed?"),
        ('[grid]\n"run.seed" = ["one"]', "run.seed must be of type int"),
        ('[grid]\n"run.seed" = [1, -1]', "run.seed must not be negative"),
        ('[grid]\n"run.seed" = [1979-05-27]', "1979-05-27 is no value of a configuration"),
        ('gird = 1\n[grid]\n"run.seed" = [1]', "unknown key gird, did you mean grid?"),
        ('profile = 1\n[grid]\n"run.seed" = [1]', "profile must be a string"),
        ('profile = "nonsense"\n[grid]\n"run.seed" = [1]', "no profile named 'nonsense'"),
        (
            f'[grid]\n"run.seed" = {list(range(51))}\n"clustering.clusters" = [0, 8]',
            "102 combinations are too many, 100 are allowed",
        ),
        ("grid = [", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(plan, text, words):
    with pytest.raises(ConfigError) as caught:
        plan(text)
    assert words in str(caught.value)
    assert "clusters.toml: " in str(caught.value)
