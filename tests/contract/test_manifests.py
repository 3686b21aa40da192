"""The manifests under deploy/: each overlay renders, validates, and holds together."""

import copy
import json
import re
import shlex
from functools import cache

import custom_resources
import kubernetes_validate
import pytest
import typer
import yaml
from manifests import DEPLOY, OVERLAYS, drawn_secrets, of_kind, rendered, strings, workloads

from xcflow.config import Config, TrackingConfig
from xcflow.registry import names
from xcflow.serving.http.app import create_app
from xcflow.serving.http.guards import OPEN
from xcflow.serving.http.metrics import Metrics
from xcflow.serving.http.models import Models
from xcflow.serving.http.settings import ServerSettings
from xcflow_components import IMAGE
from xcflow_pipelines import serve
from xcflow_pipelines.cli import app

# From the oldest in which every field is there (a preStop hook that sleeps) to the newest known.
KUBERNETES = ("1.30", "1.34", "1.37")
ROOT = DEPLOY.parent
every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
# What is read in these, or by the libraries that they call, is an environment variable.
READERS = ("src", "pipelines", "components", "mlflow")
OF_LIBRARIES = {
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL",
    "PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSSLMODE",
}  # fmt: skip
OTHER_PROGRAMS = ("postgres", "seaweedfs")


def parse(words):
    """The context of the innermost command that a command line names."""
    command = typer.main.get_command(app)
    context = command.make_context("xcflow", list(words[1:]))
    while hasattr(command, "resolve_command"):
        given = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, given)
        context = command.make_context(name, list(rest), parent=context)
    return context


def has_trigger():
    group = typer.main.get_command(app).commands.get("pipeline")
    return group is not None and "trigger" in group.commands


awaits_cluster = pytest.mark.skipif(
    not hasattr(Config(), "cluster"), reason="profiles have no section [cluster] yet"
)
awaits_trigger = pytest.mark.skipif(not has_trigger(), reason="no `xcflow pipeline trigger` yet")


def problems(document, version=KUBERNETES[-1]):
    """What is wrong with a document, by the schema of its kind."""
    if custom_resources.is_known(document):
        return custom_resources.problems(document)
    return _built_in_problems(json.dumps(document), version)


@cache
def _built_in_problems(document, version):
    try:
        kubernetes_validate.validate(json.loads(document), version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [error.message]
    return []


def example(path):
    return yaml.safe_load((DEPLOY / "examples" / path).read_text())


def variables(workload):
    """Each environment variable of a workload's containers, as (container, name, entry)."""
    for container in workload.containers:
        for entry in container.get("env", []):
            yield container, entry["name"], entry


def read_maps(workload):
    """The ConfigMaps that a workload's containers take variables from."""
    for container in workload.containers:
        for source in container.get("envFrom", []):
            yield source["configMapRef"]["name"]


def read_secrets(documents):
    """(namespace, secret, key) of all that pods read; the key is * where all are mounted."""
    for workload in workloads(documents):
        for _, _, entry in variables(workload):
            if reference := entry.get("valueFrom", {}).get("secretKeyRef"):
                yield workload.namespace, reference["name"], reference["key"]
        for volume in workload.pod.get("volumes", []):
            if "secret" in volume:
                yield workload.namespace, volume["secret"]["secretName"], "*"


def documented_secrets():
    """The secrets of the table in deploy/README.md: (namespace, secret) -> keys."""
    text = (DEPLOY / "README.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| `([\w-]+)` \| ([^|]+) \|", text, re.MULTILINE)
    return {(where, name): set(re.findall(r"`([^`]+)`", keys)) for where, name, keys in rows}


# ------------------------------------------------------------------ validity


@every_overlay
@pytest.mark.parametrize("version", KUBERNETES)
def test_every_document_is_valid(overlay, version):
    documents = rendered(overlay)
    assert [(d["kind"], d["metadata"]["name"], problems(d, version)) for d in documents] == [
        (d["kind"], d["metadata"]["name"], []) for d in documents
    ]


@pytest.mark.parametrize(
    ("overlay", "kind", "path", "value"),
    [
        ("dev", "Deployment", ("spec", "template", "spec", "containrs"), []),
        ("dev", "CronJob", ("spec", "concurrencyPolicy"), 3),
        ("dev", "NetworkPolicy", ("spec", "podSelector", "matchLabel"), {}),
        ("prod-kserve", "InferenceService", ("spec", "predictor", "minReplica"), 2),
        ("prod-kserve", "InferenceService", ("spec", "predictor", "scaleMetric"), "queue"),
        ("prod-kserve", "InferenceService", ("spec", "predictor", "volumes", 0, "empty"), {}),
        ("dev", "TrainingRuntime", ("spec", "mlPolicy", "numNodes"), "two"),
        ("dev", "TrainingRuntime", ("spec", "template", "spec", "replicatedJobs", 0, "nam"), "a"),
    ],
)
def test_an_invalid_document_is_noticed(overlay, kind, path, value):
    document = copy.deepcopy(of_kind(rendered(overlay), kind)[0])
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    assert problems(document)


def test_the_example_of_a_training_job_is_valid():
    job = example("train-job.yaml")
    assert problems(job) == []
    (runtime,) = of_kind(rendered("prod"), "TrainingRuntime")
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert job["spec"]["runtimeRef"]["kind"] == runtime["kind"]
    assert job["metadata"]["namespace"] == runtime["metadata"]["namespace"]
    assert problems({**job, "metadata": {"name": "2nodes", "namespace": "a"}})


@every_overlay
def test_no_two_documents_are_one_object(overlay):
    seen = [
        (d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"])
        for d in rendered(overlay)
    ]
    assert len(seen) == len(set(seen))


# ------------------------------------------------------------------ what names what


@every_overlay
def test_what_pods_name_is_there(overlay):
    documents = rendered(overlay)
    there = {(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in documents}
    for workload in workloads(documents):
        account = ("ServiceAccount", workload.namespace, workload.pod["serviceAccountName"])
        assert account in there
        for name in read_maps(workload):
            assert ("ConfigMap", workload.namespace, name) in there
        for volume in workload.pod.get("volumes", []):
            if "configMap" in volume:
                assert ("ConfigMap", workload.namespace, volume["configMap"]["name"]) in there
        volumes = {volume["name"] for volume in workload.pod.get("volumes", [])} | workload.claims
        for container in workload.containers:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


@every_overlay
def test_a_change_of_settings_restarts_who_reads_them(overlay):
    """Also those in custom resources, whose references kustomize does not know by itself."""
    for workload in workloads(rendered(overlay)):
        assert all(re.search(r"-[a-z0-9]{10}$", name) for name in read_maps(workload))


@every_overlay
def test_secrets_are_named_and_documented(overlay):
    documents = rendered(overlay)
    assert of_kind(documents, "Secret") == []
    documented = documented_secrets()
    for where, name, key in read_secrets(documents):
        assert (where, name) in documented, f"deploy/README.md lacks {name}"
        assert key == "*" or key in documented[where, name]
    texts = [text for document in documents for text in strings(document)]
    assert [text for text in texts if re.search(r"://[^/@\s]+:[^/@\s]+@", text)] == []


def test_no_secret_is_documented_in_vain():
    read = {
        (where, name) for overlay in OVERLAYS for where, name, _ in read_secrets(rendered(overlay))
    }
    assert set(documented_secrets()) == read


def test_secrets_of_dev_are_all_drawn():
    made = drawn_secrets()
    for where, name, key in read_secrets(rendered("dev")):
        assert key == "*" or made[where, name][key], f"{name} lacks {key}"
    assert {name: set(values) for name, values in made.items()} == documented_secrets()
    drawn = [
        value
        for values in made.values()
        for key, value in values.items()
        if key in {"password", "secret-key", "token"}
    ]
    assert len(set(drawn)) == len(drawn) - 1  # the pipeline's user, known in both namespaces
    twice = [made[where, "xcflow-pipeline-tracking"] for where in ("xcflow", "xcflow-pipelines")]
    assert twice[0] == twice[1]
    assert all(len(value) >= 16 for value in drawn)  # MLflow's own bounds are 12 and 16


@every_overlay
def test_services_lead_to_ports_of_pods(overlay):
    documents = rendered(overlay)
    for service in of_kind(documents, "Service"):
        chosen = [
            workload
            for workload in workloads(documents)
            if workload.namespace == service["metadata"]["namespace"]
            and service["spec"]["selector"].items() <= workload.labels.items()
        ]
        assert len(chosen) == 1
        assert all(chosen[0].port(port["targetPort"]) for port in service["spec"]["ports"])


@every_overlay
def test_addresses_of_services_are_right(overlay):
    """An address in a setting, like http://mlflow.xcflow.svc:5000, is one of a Service."""
    documents = rendered(overlay)
    addresses = {
        f"{s['metadata']['name']}.{s['metadata']['namespace']}.svc": {
            str(port["port"]) for port in s["spec"]["ports"]
        }
        for s in of_kind(documents, "Service")
    }
    addresses |= {"ml-pipeline.kubeflow.svc": {"8888"}}  # Kubeflow Pipelines
    texts = [text for document in documents for text in strings(document)]
    named = re.findall(r"([\w-]+\.[\w-]+\.svc)(?::(\d+))?", " ".join(texts))
    assert ("mlflow.xcflow.svc", "5000") in named
    for host, port in named:
        assert host in addresses
        assert port in {"", *addresses[host]}


@every_overlay
def test_selectors_match_pods(overlay):
    documents = rendered(overlay)
    found = list(workloads(documents))
    for document in of_kind(documents, "Deployment", "StatefulSet", "PodDisruptionBudget"):
        wanted = document["spec"]["selector"]["matchLabels"].items()
        assert any(wanted <= w.labels.items() for w in found), document["metadata"]["name"]
    for workload in found:
        for spread in workload.pod.get("topologySpreadConstraints", []):
            assert spread["labelSelector"]["matchLabels"].items() <= workload.labels.items()
    for scaler in of_kind(documents, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert [
            d for d in of_kind(documents, target["kind"]) if d["metadata"]["name"] == target["name"]
        ]


def test_an_autoscaled_deployment_states_no_replicas():
    """Or each kubectl apply would undo what the autoscaler did."""
    documents = rendered("prod")
    scaled = {
        s["spec"]["scaleTargetRef"]["name"] for s in of_kind(documents, "HorizontalPodAutoscaler")
    }
    deployments = {d["metadata"]["name"]: d["spec"] for d in of_kind(documents, "Deployment")}
    assert scaled == {"xcflow-serving"}
    assert all("replicas" not in deployments[name] for name in scaled)


# ------------------------------------------------------------------ what the programs know


def serving(overlay):
    """The pod of the server, and its container."""
    (found,) = (
        w
        for w in workloads(rendered(overlay))
        if w.labels["app.kubernetes.io/name"] == "xcflow-serving"
    )
    (container,) = found.containers
    return found, container


@every_overlay
def test_probes_of_the_server_ask_routes_that_are_open(overlay):
    guarded = create_app(
        Models(None, "xcflow", "champion", "previous", Metrics()),
        ServerSettings(token="a"),
        Metrics(),
        local=False,
    )
    routes = {route.path for route in guarded._app.routes}
    workload, container = serving(overlay)
    probes = {
        name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")
    }
    for probe in probes.values():
        assert probe["path"] in routes & OPEN
        assert workload.port(probe["port"]) == 8080
    assert probes["readiness"]["path"].endswith("/ready")
    assert probes["liveness"]["path"].endswith("/live"), "no model is no reason to restart"


@every_overlay
def test_the_server_has_time_to_end(overlay):
    workload, container = serving(overlay)
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert workload.pod["terminationGracePeriodSeconds"] > pause + serve._GRACE_S


@every_overlay
def test_the_server_follows_the_champion_on_the_port_it_opens(overlay):
    workload, container = serving(overlay)
    given = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
    assert given["--model"] == f"models:/{TrackingConfig().model_name}@{names.CHAMPION}"
    assert int(given["--port"]) == workload.port("http")
    assert serve.TOKEN in {name for _, name, _ in variables(workload)}


def test_kserve_runs_the_same_container():
    """But for its name."""
    (plain_pod, plain), (pod, container) = serving("prod"), serving("prod-kserve")
    assert container["name"] == "kserve-container"
    assert {**container, "name": "serving"} == plain
    same = ("securityContext", "volumes", "terminationGracePeriodSeconds", "serviceAccountName")
    assert [pod.pod[key] for key in same] == [plain_pod.pod[key] for key in same]


def command_lines(overlay):
    """The words with which containers start this project's command, by workload."""
    return [
        (workload.name, [*container["command"], *container.get("args", [])])
        for workload in workloads(rendered(overlay))
        for container in workload.containers
        if container.get("command", [""])[0] == "xcflow"
    ]


@every_overlay
def test_command_lines_are_understood(overlay):
    """By the command line itself: every option is there and takes what it is given."""
    found = [(name, words) for name, words in command_lines(overlay) if name != "xcflow-trigger"]
    assert len(found) == 4
    for _, words in found:
        parse(words)


@awaits_trigger
@every_overlay
def test_the_command_line_of_the_trigger_is_understood(overlay):
    (words,) = (words for name, words in command_lines(overlay) if name == "xcflow-trigger")
    parse(words)


def test_a_wrong_command_line_is_noticed():
    for words in ("xcflow serve --prot 1", "xcflow sreve", "xcflow serve --port many"):
        with pytest.raises(Exception, match=r"No such|valid integer"):
            parse(shlex.split(words))


@every_overlay
def test_every_variable_is_read(overlay):
    files = [path for folder in READERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    text = "\n".join(
        path.read_text() for path in files if path.suffix in {".py", ".sh", ".ini", ".env"}
    )
    documents = rendered(overlay)
    settings = {d["metadata"]["name"]: d["data"] for d in of_kind(documents, "ConfigMap")}
    for workload in workloads(documents):
        if workload.name in OTHER_PROGRAMS:
            continue
        words = " ".join(w for c in workload.containers for w in c.get("args", []))
        given = {name for _, name, _ in variables(workload)}
        given |= {name for each in read_maps(workload) for name in settings[each]}
        for name in given - OF_LIBRARIES:
            assert re.search(rf"\b{name}\b", text) or f"$({name})" in words, name


@every_overlay
def test_homes_can_be_written(overlay):
    for workload in workloads(rendered(overlay)):
        if workload.name in OTHER_PROGRAMS:
            continue
        volumes = {volume["name"]: volume for volume in workload.pod["volumes"]}
        for container in workload.containers:
            places = {m["mountPath"]: volumes[m["name"]] for m in container["volumeMounts"]}
            assert "emptyDir" in places["/home/xcflow"]
            assert "emptyDir" in places["/tmp"]
            values = {name: e.get("value", "") for _, name, e in variables(workload)}
            assert values.get("XCFLOW_HOME", "/home/xcflow/.").startswith("/home/xcflow/.")


@pytest.mark.slow
def test_mlflow_is_asked_by_a_name_that_it_answers_to():
    from mlflow.server import app as server
    from mlflow.server.security_utils import HEALTH_ENDPOINTS, is_allowed_host_header

    routes = {rule.rule for rule in server.url_map.iter_rules()}
    for overlay in OVERLAYS:
        documents = rendered(overlay)
        values = {k: v for d in of_kind(documents, "ConfigMap") for k, v in d["data"].items()}
        host = values["MLFLOW_TRACKING_URI"].partition("://")[2]
        assert is_allowed_host_header(values["MLFLOW_SERVER_ALLOWED_HOSTS"].split(","), host)
        (mlflow,) = (w for w in workloads(documents) if w.name == "mlflow")
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = mlflow.containers[0][probe]["httpGet"]["path"]
            assert path in routes
            assert path in HEALTH_ENDPOINTS  # asked by the pod's address, and without a password


def test_metrics_of_the_readme_are_there():
    named = set(re.findall(r"xcflow_\w+", (DEPLOY / "README.md").read_text()))
    assert named
    assert all(name in Metrics().text().decode() for name in named)


def test_images_are_those_that_are_built():
    images = {
        container["image"].rpartition(":")[0]
        for workload in workloads(rendered("dev"))
        for container in workload.containers
        if workload.name not in OTHER_PROGRAMS
    }
    assert IMAGE.partition(":")[0] in images
    assert images == {"xcflow-serve", "xcflow-train", "xcflow-mlflow"}


# ------------------------------------------------------------------ the runs that are submitted


@awaits_cluster
@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_the_profile_of_the_runs_fits_what_is_there(overlay):
    documents = rendered(overlay)
    config = Config.load(DEPLOY / "overlays" / overlay / "profile.toml")
    where = config.cluster.namespace
    assert (where, config.cluster.service_account) in {
        (d["metadata"]["namespace"], d["metadata"]["name"])
        for d in of_kind(documents, "ServiceAccount")
    }
    settings = {
        d["metadata"]["name"].rpartition("-")[0]: d["data"]
        for d in of_kind(documents, "ConfigMap")
        if d["metadata"]["namespace"] == where
    }
    assert {"MLFLOW_TRACKING_URI": config.tracking.uri} == settings["xcflow-tracking"]
    assert config.cluster.environment == settings["xcflow-s3"]
    for reference in config.cluster.secrets.values():
        name, _, key = reference.partition("/")
        assert key in documented_secrets()[where, name]
    (runtime,) = (w for w in workloads(documents) if w.kind == "TrainingRuntime")
    given = {
        name: "{name}/{key}".format(**entry["valueFrom"]["secretKeyRef"])
        for _, name, entry in variables(runtime)
        if "valueFrom" in entry
    }
    assert given == config.cluster.secrets


@awaits_cluster
def test_the_runs_of_production_are_fit_for_it():
    from xcflow_pipelines.cluster.compiling import compile_package

    image = f"registry.example.org/xcflow-train@sha256:{'0' * 64}"
    profile = DEPLOY / "overlays/prod/profile.toml"
    config = Config.load(profile, [f"cluster.image={image}"])
    assert config.cluster.require_digests
    package = compile_package(config, "")
    assert image in package.text
