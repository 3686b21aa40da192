"""What the images promise, read from the files that they are made of."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from jsonschema.validators import validator_for

ROOT = Path(__file__).parents[2]
SCHEMAS = Path(__file__).parent / "schemas"
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
IMAGES = ("train", "serve", "mlflow")
LOCKS = ("build", "mlflow", "serve", "torch-gpu", "train")
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;]+)", flags=re.MULTILINE)
PLACES = r"(COPY|ADD) (?!--from=wheel|--from=\w+-environment)(?:--\S+ )*(?P<sources>.*) \S+"


def stages():
    """Name -> the stage it is made from and its instructions."""
    found = {}
    for line in DOCKERFILE.splitlines():
        if start := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            found[start[2]] = (start[1], [])
        elif found and line.strip() and not line.startswith("#"):
            found[next(reversed(found))][1].append(" ".join(line.split()))
    return found


def instructions(image):
    """All that make up an image, those of the stages below it first."""
    below, own = stages()[image]
    return (instructions(below) if below in stages() else []) + own


def lock(name):
    return (ROOT / f"docker/requirements/{name}.lock").read_text(encoding="utf-8")


def test_the_base_is_an_argument_and_nothing_floats():
    assert {below for below, _ in stages().values()} <= {"${PYTHON_IMAGE}", "scratch", *stages()}
    argument = "ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim"
    assert DOCKERFILE.splitlines().count(argument) == 1
    assert "latest" not in DOCKERFILE


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_restricted_and_described(image):
    lines = instructions(image)
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:0"]
    assert [line.split()[0] for line in lines].count("ENTRYPOINT") == 1
    assert [line.split()[0] for line in lines].count("HEALTHCHECK") == 1
    labels = " ".join(line for line in lines if line.startswith("LABEL "))
    for name in ("title", "description", "version", "revision", "created", "source", "licenses"):
        assert f"org.opencontainers.image.{name}=" in labels
    # pip and what it needs run in stages that do not stay.
    assert not [line for line in lines if "pip" in line.lower() and not line.startswith("ENV")]


def test_servers_have_a_health_check():
    for image in ("serve", "mlflow"):
        (check,) = (line for line in instructions(image) if line.startswith("HEALTHCHECK"))
        assert "CMD" in check


def test_what_is_copied_is_in_the_context():
    shown = [line for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"]
    copied = {
        source
        for found in re.finditer(PLACES, DOCKERFILE)
        for source in found["sources"].split()
    }  # fmt: skip
    assert len(copied) > 8
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(f"/{source}/".startswith(f"/{name[1:]}/") for name in shown), source


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_by_hash_and_names_no_place(name):
    requirement = r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+( ; [^\\]+)? \\\n"
    digest = r" {4}--hash=sha256:[0-9a-f]{64}( \\)?\n"
    comment = r"( *#[^\n]*)?\n"
    assert re.fullmatch(f"({comment})*({requirement}({digest})+({comment})*)+", lock(name))
    assert "://" not in lock(name)


@pytest.mark.parametrize("name", LOCKS)
def test_an_image_holds_a_part_of_the_one_resolution(name):
    whole = dict(PIN.findall((ROOT / "requirements.lock").read_text(encoding="utf-8")))
    part = dict(PIN.findall(lock(name)))
    apart = re.compile(r"torch|triton|nvidia-.*|cuda-.*")  # only CUDA's libraries stand elsewhere
    if name == "torch-gpu":
        part = {key: value for key, value in part.items() if not apart.fullmatch(key)}
    assert part
    assert part.items() <= whole.items()


def test_a_lock_brings_what_was_asked_for_and_not_what_was_ruled_out():
    for name in ("build", "mlflow", "serve", "torch-gpu"):
        asked = (ROOT / f"docker/requirements/{name}.in").read_text(encoding="utf-8")
        wanted = set(re.findall(r"^([a-z0-9-]+)", asked, flags=re.MULTILINE))
        assert wanted <= set(dict(PIN.findall(lock(name))))
    serve, mlflow = (set(dict(PIN.findall(lock(name)))) for name in ("serve", "mlflow"))
    assert not serve & {"torch", "transformers", "kfp", "mlflow", "flask", "gunicorn", "sqlalchemy"}
    assert not mlflow & {"torch", "transformers", "kfp"}


def test_both_variants_have_the_torch_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pinned,) = (name for name in project["dependencies"] if name.startswith("torch"))
    assert f"torch=={dict(PIN.findall(lock('torch-gpu')))['torch']}" == pinned
    assert pinned in (ROOT / "docker/requirements/torch-gpu.in").read_text(encoding="utf-8")


def violations(document, schema):
    rules = json.loads((SCHEMAS / schema).read_text(encoding="utf-8"))
    validator = validator_for(rules)(rules)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


@pytest.fixture
def stack():
    return yaml.safe_load((ROOT / "docker/compose.yaml").read_text(encoding="utf-8"))


def test_the_stack_is_a_compose_file(stack):
    assert violations(stack, "compose-spec.json") == []
    stack["services"]["serve"]["read-only"] = True
    assert violations(stack, "compose-spec.json") != []


def test_all_of_the_stack_is_restricted_and_pinned(stack):
    for name, service in stack["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        image = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", service["image"])
        assert re.search(r":(\d|\$\{VERSION)", image), name
        for port in service.get("ports", ()):
            assert port.startswith("${BIND_ADDRESS:-127.0.0.1}:"), name


def test_a_service_waits_for_those_that_can_say_they_are_well(stack):
    with_check = {"mlflow", "serve"}  # the image brings it
    with_check |= {name for name, each in stack["services"].items() if "healthcheck" in each}
    for service in stack["services"].values():
        for other, how in service.get("depends_on", {}).items():
            healthy = how["condition"] == "service_healthy" and other in with_check
            once = (
                how["condition"] == "service_completed_successfully"
                and stack["services"][other]["restart"] == "no"
            )
            assert healthy or once


def test_no_password_stands_in_the_repository(stack):
    files = [secret["file"] for secret in stack["secrets"].values()]
    assert all(Path(file).parts[0] == "secrets" for file in files)
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert {"/docker/.env", "/docker/secrets/", "/docker/secrets.partial/"} <= set(ignored)
    for service in stack["services"].values():
        for key, value in service.get("environment", {}).items():
            assert "PASSWORD" not in key or value.startswith("/run/secrets/"), key


def test_new_secrets_are_complete_random_and_never_replaced(stack, tmp_path):
    script = tmp_path / "docker/new_secrets.sh"
    script.parent.mkdir()
    script.write_text((ROOT / "docker/new_secrets.sh").read_text(encoding="utf-8"))
    done = subprocess.run(["sh", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = script.parent / "secrets"
    assert folder.stat().st_mode & 0o777 == 0o700
    needed = {Path(secret["file"]).name for secret in stack["secrets"].values()}
    needed |= {
        Path(file).name for each in stack["services"].values() for file in each.get("env_file", ())
    }
    assert {path.name for path in folder.iterdir()} == needed
    words = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    found = re.findall(r"\b[0-9a-f]{48}\b", "\n".join(words.values()))
    # Four are told twice: to who checks them and to who gives them.
    assert len(found) == 7 + 4
    assert len(set(found)) == 7
    assert words["admin_password"] in words["user.env"]
    (identity,) = json.loads(words["s3_identities"])["identities"]
    for key in identity["credentials"][0].values():
        assert key in words["s3_credentials"]
    again = subprocess.run(["sh", script], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert len(again.stderr.splitlines()) == 1
    assert (folder / "session_key").read_text(encoding="utf-8") == words["session_key"]


def build(*arguments, **environment):
    return subprocess.run(
        [ROOT / "docker/build.sh", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["serving"], {"ENGINE": "buildah"}, "serving: expected train, serve or mlflow"),
        (["serve"], {"ENGINE": "podman"}, "ENGINE=podman: expected docker or buildah"),
    ],
)
def test_a_mistaken_build_gets_one_line(arguments, environment, said):
    done = build(*arguments, **environment)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"images: {said}"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda p: p.name
)
def test_a_workflow_is_valid_pinned_and_may_do_little(path):
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert (
        violations(
            {("on" if k is True else k): v for k, v in workflow.items()}, "github-workflow.json"
        )
        == []
    )
    assert set(workflow["permissions"].values()) == {"read"}
    for action in re.findall(r"uses: (\S+)", text):
        assert action.startswith("./") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
