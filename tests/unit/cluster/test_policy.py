"""Production refuses whatever may change by itself, has no bounds, or shows a secret."""

import re
from pathlib import Path

import pytest

from xcflow.cluster_config import SECRET_NAME
from xcflow.config import Config
from xcflow.errors import ClusterError, ConfigError
from xcflow_pipelines.cluster.compiling import compile_package
from xcflow_pipelines.cluster.policy import require_fit_for_production
from xcflow_pipelines.toml_text import to_toml

PROFILE = Path(__file__).parents[2] / "contract" / "cluster.toml"
IMAGE = f"registry/xcflow@sha256:{'0' * 64}"


def compiled(**sections):
    cluster = {"image": IMAGE, "require_digests": True, **sections.pop("cluster", {})}
    return compile_package(Config.from_dict({"cluster": cluster, **sections}))


def test_a_good_profile_passes():
    compile_package(Config.load(PROFILE))
    compiled()


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"cluster": {"image": ""}}, "xcflow-train:.* is not named by its digest: set cluster.im"),
        ({"cluster": {"deadline_seconds": 0}}, "may take for ever: set cluster.deadline_seconds"),
        ({"cluster": {"ttl_seconds": 0}}, "are kept for ever: set cluster.ttl_seconds"),
        ({"tracking": {"uri": "https://me:word@mlflow"}}, "tracking.uri holds a password"),
        ({"notify": {"webhook": "https://me:word@chat"}}, "notify.webhook holds a password"),
        ({"cluster": {"environment": {"PROXY": "http://a:b@proxy"}}}, "shows a password in PROXY"),
    ],
)
def test_what_is_not_fit_is_named_with_what_to_do(sections, line):
    with pytest.raises(ClusterError, match=line):
        compiled(**sections)


def test_all_of_it_is_named_at_once():
    with pytest.raises(ClusterError) as caught:
        compiled(cluster={"image": "", "ttl_seconds": 0})
    assert "cluster.image" in str(caught.value)
    assert "cluster.ttl_seconds" in str(caught.value)


def test_what_a_cluster_gets_is_looked_at_and_not_what_was_meant():
    config = Config.from_dict({"cluster": {"image": IMAGE}})
    text = compile_package(config).text
    for good, bad, line in (
        (f"image: {IMAGE}", "image: other", "image other is not named by its digest"),
        ("resourceMemoryLimit:", "memoryLimitOf:", "has no resourceMemoryLimit"),
        ("- name: HOME", "- name: DB_PASSWORD", "shows the secret DB_PASSWORD"),
    ):
        with pytest.raises(ClusterError, match=line):
            require_fit_for_production(text.replace(good, bad, 1), config)


@pytest.mark.parametrize(
    ("cluster", "line"),
    [
        ({"image": "xcflow:latest", "require_digests": True}, "must be named by its digest"),
        ({"environment": {"DB_PASSWORD": "x"}}, "environment.DB_PASSWORD looks like a secret"),
        ({"environment": {"HOME": "/x"}}, "environment.HOME: is set by xcflow itself"),
        ({"environment": {"a b": "x"}}, "environment.a b: is no name of a variable"),
        ({"secrets": {"TOKEN": "hunter2"}}, "secrets.TOKEN must name SECRET/KEY"),
        ({"secrets": {"A": "s/k"}, "environment": {"A": "1"}}, "environment.A is a secret too"),
        ({"namespace": "My Team"}, "cluster.namespace: 'My Team' is no name of a Kubernetes"),
        ({"image_pull_secrets": ["A_B"]}, "cluster.image_pull_secrets: 'A_B' is no name"),
        ({"scratch_size": "much"}, "cluster.scratch_size must be a size such as 1Gi"),
        ({"ttl_seconds": -1}, "cluster.ttl_seconds must not be negative"),
        ({"retry": {"factor": 0.5}}, "cluster.retry.factor must be at least 1"),
        ({"retry": {"max_seconds": 1}}, "cluster.retry.max_seconds must be at least"),
        ({"tolerations": [{"value": "x"}]}, "without key needs operator = 'Exists'"),
        ({"tolerations": [{"kee": "x"}]}, "cluster.tolerations: unknown key kee, did you mean key"),
        ({"tolerations": ["x"]}, "cluster.tolerations must hold tables, not 'x'"),
        ({"node_selector": ["x"]}, "cluster.node_selector is a table of names and values"),
        ({"node_selector": {"a": 1}}, "cluster.node_selector.a must be of type str, not 1"),
    ],
)
def test_a_wrong_setting_is_one_line(cluster, line):
    with pytest.raises(ConfigError, match=line):
        Config.from_dict({"cluster": cluster})


@pytest.mark.parametrize("name", ["MY_PASSWORD", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "API_KEY"])
def test_names_of_secrets_are_known(name):
    assert re.fullmatch(SECRET_NAME, name)


def test_a_profile_of_a_cluster_survives_plain_values_and_files(tmp_path):
    config = Config.load(PROFILE)
    written = tmp_path / "written.toml"
    written.write_text(to_toml(config.to_dict()))
    assert Config.load(written) == config
    assert Config.from_dict(config.to_dict()) == config
    assert Config.from_json(config.to_json()) == config
    assert config.resources.train_encoder.tolerations[0].operator == "Exists"
