"""A component declares a task and hands it to the library: typed, documented, short."""

import ast
import importlib
import inspect
import pkgutil
import textwrap

import pytest
from kfp import dsl

import xcflow_components
from xcflow.steps import STEPS
from xcflow.steps.flow import RECORDED, RECORDED_OF_REFRESH

MAX_BODY_LINES = 15
MODULES = sorted(m.name for m in pkgutil.iter_modules(xcflow_components.__path__) if not m.ispkg)


def component(name):
    return getattr(importlib.import_module(f"xcflow_components.{name}"), name)


def definition(name):
    source = textwrap.dedent(inspect.getsource(component(name).python_func))
    return next(n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef))


def inputs(name):
    return component(name).component_spec.inputs or {}


def outputs(name):
    return component(name).component_spec.outputs or {}


def test_every_step_has_a_component():
    assert set(STEPS) <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_body_is_short(name):
    body = definition(name).body[1:]  # without the docstring
    assert body[-1].end_lineno - body[0].lineno + 1 <= MAX_BODY_LINES


@pytest.mark.parametrize("name", MODULES)
def test_body_imports_only_the_library(name):
    imports = [n for n in ast.walk(definition(name)) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert imports
    ours = ("xcflow", "xcflow_components")
    assert all(n.module.split(".")[0] in ours for n in imports)


@pytest.mark.parametrize("name", MODULES)
def test_each_argument_is_typed_and_described(name):
    function = definition(name)
    described = ast.get_docstring(function)
    for argument in function.args.args:
        assert argument.annotation is not None, argument.arg
        assert f"    {argument.arg}: " in described, argument.arg
    assert function.returns is not None


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_installed_when_a_task_starts(name):
    container = component(name).component_spec.implementation.container
    assert container.image == xcflow_components.IMAGE
    assert "pip install" not in " ".join(container.command)


@pytest.mark.parametrize("name", sorted(STEPS))
def test_a_step_component_takes_what_the_step_takes(name):
    step = STEPS[name]
    artifacts = {key for key, spec in inputs(name).items() if spec.type.startswith("system.")}
    parameters = set(inputs(name)) - artifacts
    folders = artifacts | {key.removesuffix("_uri") for key in parameters if key.endswith("_uri")}
    folders |= parameters & set(step.inputs)  # a registered bundle, by its digest
    assert set(step.inputs) <= folders
    assert folders <= set(step.inputs + step.optional_inputs)
    assert {"library_digest", "config"} <= parameters


def test_configure_gives_each_step_its_sections():
    assert list(outputs("configure")) == ["run_name", "catalogue_digest", *STEPS]


@pytest.mark.parametrize(
    ("name", "recorded"), [("record_run", RECORDED), ("record_refresh", RECORDED_OF_REFRESH)]
)
def test_the_record_gets_the_outputs_in_its_order(name, recorded):
    folders = [key for key, spec in inputs(name).items() if spec.type.startswith("system.")]
    produced = {next(iter(outputs(step))): step for step in recorded}
    assert [produced[folder] for folder in folders] == list(recorded)


def test_pages_that_kubeflow_draws_are_published():
    html = {n for n in MODULES if any("HTML" in s.type for s in outputs(n).values())}
    metrics = {n for n in MODULES if any("Metrics" in s.type for s in outputs(n).values())}
    assert {"validate_data", "evaluate_model", "gate_model"} <= html
    assert {"validate_data", "train_encoder", "train_classifier", "evaluate_model"} <= metrics


def test_the_exit_handler_sees_how_the_run_ended():
    assert inspect.signature(component("notify").python_func).parameters["status"].annotation is (
        dsl.PipelineTaskFinalStatus
    )
