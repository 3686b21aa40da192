"""The command line without a model: usage, errors in one line, exit codes."""

import dataclasses
import json
import socket
import subprocess
import sys
import tomllib

import pytest

from xcflow.config import Config
from xcflow.errors import DataError, GateError
from xcflow.home import Home
from xcflow.registry.moves import Move, append_move
from xcflow_pipelines import shell
from xcflow_pipelines.cli import app
from xcflow_pipelines.toml_text import to_toml

HEAVY = ("torch", "mlflow", "kfp", "great_expectations", "transformers", "pandas", "numpy", "rich")


@pytest.fixture
def xcflow(tmp_path, monkeypatch, capsys):
    """Runs a command line in an empty folder; returns exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XCFLOW_HOME", raising=False)

    def act(*arguments):
        code = shell.guarded(lambda: app(arguments, standalone_mode=False))
        return code, *capsys.readouterr()

    return act


def test_help_imports_nothing_heavy():
    """So it answers at once; a bound on the time would fail on a busy machine."""
    script = (
        "import sys; sys.argv = ['xcflow', '--help']\n"
        "from xcflow_pipelines.cli import main\n"
        "try: main()\n"
        f"finally: print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "Retrain by the whole pipeline" in done.stdout
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["run", "--nonsense"], "--nonsense"),
        (["run", "--data", "nowhere"], "--data nowhere: no such folder"),
        (["run", "--profile", "nonsense"], "no profile named 'nonsense'"),
        (["run", "--set", "run.sed=1"], "did you mean run.seed?"),
        (["run", "--set", "nonsense"], "expected section.key=value"),
        (["validate", "--data", "nowhere"], "no such folder"),
        (["step", "nonsense", "--output", "x"], "no step named 'nonsense'"),
        (["step", "cluster_labels", "--output", "x"], "needs the input dataset"),
        (["step", "cluster_labels", "--output", "x", "--input", "y"], "expected NAME=DIR"),
        (["predict"], "either a text or --input"),
        (["predict", "x", "--input", "y", "--output", "z"], "either a text or --input"),
        (["predict", "--input", "x"], "belong together"),
        (["predict", "--input", "x", "--output", "y"], "x: no such file"),
        (["predict", "x", "-k", "0"], "-k"),
        (["compare", "a", "b"], "no finished run a"),
        (["promote", "a"], "no finished run a"),
        (["promote", "a", "--override"], "needs --reason"),
        (["promote", "a", "--override", "--reason", " "], "needs --reason"),
        (["rollback"], "needs --reason"),
        (["user", "eve", "--role", "king"], "expected reader, trigger, trainer, promoter"),
        (["user", "a:b", "--role", "reader"], "'a:b': a user's name must not be empty, nor hold"),
        (["user", "eve", "--role", "reader"], "no password: set $XCFLOW_USER_PASSWORD"),
        (["rollback", "--to", "1", "--reason", " "], "needs --reason"),
        (["profiles", "show", "nonsense"], "no profile named 'nonsense'"),
    ],
)
def test_wrong_usage_is_one_line(xcflow, arguments, words):
    code, out, error = xcflow(*arguments)
    assert (code, out) == (shell.USAGE, "")
    assert words in error
    assert error.startswith("xcflow: ")
    assert error.count("\n") == 1


def test_a_port_in_use_is_named(xcflow):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, error = xcflow("mlflow", "--port", str(port))
    assert code == shell.USAGE
    assert f"127.0.0.1:{port}" in error


def test_without_a_champion_the_next_step_is_named(xcflow, tmp_path):
    code, out, error = xcflow("predict", "a text", "--home", str(tmp_path / "home"))
    assert (code, out) == (shell.FAILED, "")
    assert "run the pipeline first (xcflow run)" in error
    assert error.count("\n") == 1


def test_a_home_can_be_named_before_the_command(xcflow, tmp_path):
    _, _, error = xcflow("--home", str(tmp_path / "elsewhere"), "predict", "a text")
    assert "elsewhere" in error


def test_history_of_a_new_home(xcflow):
    assert xcflow("history") == (shell.OK, "no champion yet: xcflow run\n", "")
    assert xcflow("history", "--json") == (shell.OK, "[]\n", "")


def test_an_altered_history_is_shown_and_named(xcflow, tmp_path):
    home = Home.at(tmp_path / "home")
    home.root.mkdir()
    move = Move(**{field.name: field.name for field in dataclasses.fields(Move)})
    for action in ("promote", "override", "rollback"):
        append_move(home, dataclasses.replace(move, action=action))
    code, out, error = xcflow("history", "--home", str(home.root))
    assert (code, error) == (shell.OK, "")
    actions = [line.split()[2] for line in out.splitlines()[1:]]
    assert actions == ["rollback", "override", "promote"]
    text = home.promotions.read_text().replace("override", "promote", 1)
    home.promotions.write_text(text)
    code, out, error = xcflow("history", "--home", str(home.root))
    assert code == shell.FAILED
    assert len(out.splitlines()) == 4
    assert "promotions.jsonl, line 3: does not follow the line before" in error
    assert error.count("\n") == 1


def test_profiles_are_listed(xcflow):
    code, out, _ = xcflow("profiles")
    assert code == shell.OK
    assert "quick" in [line.split()[0] for line in out.splitlines()]
    assert "quick" in json.loads(xcflow("profiles", "--json")[1])


def test_a_shown_profile_is_a_profile(xcflow, tmp_path):
    _, out, _ = xcflow("profiles", "show", "quick", "--set", "run.seed=7")
    assert tomllib.loads(out)["run"]["seed"] == 7
    path = tmp_path / "copy.toml"
    path.write_text(out)
    assert Config.load(path) == Config.load("quick", ["run.seed=7"])


def test_toml_is_the_inverse_of_reading_it():
    tree = {"a": 1, "b": {"c": 'quoted "text" \\ é', "d": [1, 2]}, "e": {"f": {"g": True}}}
    assert tomllib.loads(to_toml(tree)) == tree


@pytest.mark.parametrize(
    ("error", "code"),
    [(DataError("bad\nnews", "file", 3), 1), (GateError("held"), 3), (ValueError("a bug"), 1)],
)
def test_errors_are_one_line(error, code, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XCFLOW_HOME", str(tmp_path))

    def fail():
        raise error

    assert shell.guarded(fail) == code
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "Traceback" not in line


def test_the_traceback_of_a_bug_is_kept(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XCFLOW_HOME", str(tmp_path))
    assert shell.guarded(lambda: 1 / 0) == shell.FAILED
    (path,) = (tmp_path / "logs").iterdir()
    assert str(path) in capsys.readouterr().err
    assert "ZeroDivisionError" in path.read_text()


def test_a_reader_that_has_seen_enough_is_no_error():
    script = "from xcflow_pipelines.cli import main; main()"
    arguments = ["profiles", "show", "quick"]
    shown = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    shown.stdout.close()
    assert shown.stderr.read() == ""
    assert shown.wait() == shell.FAILED


@pytest.mark.parametrize(
    ("called", "on_path", "expected"),
    [
        (".venv/bin/xcflow", False, ".venv/bin/xcflow"),
        ("/usr/bin/xcflow", True, "xcflow"),
        ("/x/__main__.py", False, "python -m xcflow_pipelines"),
    ],
)
def test_commands_are_shown_as_they_can_be_typed(monkeypatch, called, on_path, expected):
    monkeypatch.setattr("sys.argv", [called])
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if on_path else None)
    assert shell.command_name() == expected
