"""The runbook says of every task of the pipelines what to do when it fails."""

import re
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "runbook.md").read_text(encoding="utf-8")


def explained():
    table = PAGE.partition("### When a step fails on a cluster")[2].partition("\n## ")[0]
    first = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    return [name for cell in first for name in re.findall(r"`(\w+)`", cell)]


def tasks(dag, components):
    """Names of the tasks of a group and of the groups in it."""
    for task in dag["tasks"].values():
        component = components[task["componentRef"]["name"]]
        if "dag" in component:
            yield from tasks(component["dag"], components)
        else:
            yield task["taskInfo"]["name"].replace("-", "_")


@pytest.mark.parametrize("pipeline", ["retraining", "refreshing"])
def test_each_task_is_explained(pipeline):
    text = (HERE / "golden" / f"{pipeline}.yaml").read_text(encoding="utf-8")
    declared = next(yaml.load_all(text, yaml.CSafeLoader))
    there = set(tasks(declared["root"]["dag"], declared["components"]))
    assert "promote_model" in there
    assert there <= set(explained())


def test_no_task_is_explained_twice_and_none_that_there_is_not():
    both = "".join(path.read_text(encoding="utf-8") for path in (HERE / "golden").glob("*.yaml"))
    names = explained()
    assert len(names) == len(set(names))
    assert all(f"comp-{name.replace('_', '-')}:" in both for name in names)
