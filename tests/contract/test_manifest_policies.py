"""What the manifests allow: as little as they can, to pods, accounts and connections."""

import copy
import dataclasses
import re

import pytest
from manifests import OVERLAYS, Workload, of_kind, rendered, workloads
from network_policies import lets_out, lets_speak
from pod_policies import violations

from xcflow import __version__

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
BY_DIGEST = re.compile(r"[\w.-]+(/[\w.-]+)+@sha256:[0-9a-f]{64}")
VERBS = {"create", "delete", "get", "list", "patch", "terminate"}


# ------------------------------------------------------------------ pods


@every_overlay
def test_pods_keep_to_the_restricted_profile(overlay):
    found = {w.name: violations(w.pod) for w in workloads(rendered(overlay))}
    assert found
    assert found == {name: [] for name in found}


def pod():
    (found,) = (w for w in workloads(rendered("prod")) if w.name == "xcflow-serving")
    return copy.deepcopy(found.pod)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("securityContext", "runAsNonRoot"), False),
        (("securityContext", "runAsUser"), 0),
        (("securityContext", "seccompProfile", "type"), "Unconfined"),
        (("hostNetwork",), True),
        (("automountServiceAccountToken",), True),
        (("enableServiceLinks",), True),
        (("serviceAccountName",), ""),
        (("volumes", 0), {"name": "home", "hostPath": {"path": "/"}}),
        (("volumes", 0), {"name": "home", "emptyDir": {}}),
        (("volumes", 0, "emptyDir", "sizeLimit"), "40Gi"),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True),
        (("containers", 0, "securityContext", "readOnlyRootFilesystem"), False),
        (("containers", 0, "securityContext", "capabilities"), {"drop": []}),
        (("containers", 0, "securityContext", "capabilities", "add"), ["SYS_ADMIN"]),
        (("containers", 0, "securityContext", "privileged"), True),
        (("containers", 0, "ports", 0, "hostPort"), 8080),
        (("containers", 0, "resources", "limits"), {"cpu": "1"}),
        (("containers", 0, "resources", "requests"), {}),
        (("containers", 0, "env", 0), {"name": "MLFLOW_TRACKING_PASSWORD", "value": "a"}),
        (("initContainers",), [{"name": "first", "image": "a"}]),
    ],
)
def test_a_breach_is_noticed(path, value):
    spec = pod()
    inner = spec
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    assert violations(spec)


@every_overlay
def test_the_namespace_refuses_other_pods(overlay):
    (namespace,) = of_kind(rendered(overlay), "Namespace")
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def images(overlay):
    return [c["image"] for w in workloads(rendered(overlay)) for c in w.containers]


@pytest.mark.parametrize("overlay", ["prod", "prod-kserve"])
def test_production_names_images_by_digest(overlay):
    assert images(overlay)
    assert [image for image in images(overlay) if not BY_DIGEST.fullmatch(image)] == []


def test_dev_names_images_by_version():
    tags = [image.rpartition(":")[::2] for image in images("dev")]
    assert all(tag and tag != "latest" for _, tag in tags)
    assert {tag for name, tag in tags if name.startswith("xcflow")} == {__version__}
    assert not any(
        BY_DIGEST.fullmatch(image) for image in ("a/b:1", "xcflow-serve", "a/b@sha256:0")
    )


@pytest.mark.parametrize("overlay", ["prod", "prod-kserve"])
def test_production_serves_from_two_pods_at_least(overlay):
    documents = rendered(overlay)
    least = [s["spec"]["minReplicas"] for s in of_kind(documents, "HorizontalPodAutoscaler")]
    least += [s["spec"]["predictor"]["minReplicas"] for s in of_kind(documents, "InferenceService")]
    assert len(least) == 1
    assert least[0] >= 2
    assert len(of_kind(documents, "PodDisruptionBudget")) == 1


# ------------------------------------------------------------------ accounts


def excess(rule):
    """What a rule of a Role allows too much of."""
    found = [f"may {verb}" for verb in sorted(set(rule["verbs"]) - VERBS)]
    found += [f"all {part}" for part, names in rule.items() if any("*" in name for name in names)]
    if {"secrets", "configmaps"} & set(rule["resources"]):
        found += [] if rule.get("resourceNames") else ["any of them"]
        found += [] if rule["verbs"] == ["get"] else ["more than to read"]
    return found


@every_overlay
def test_roles_allow_little(overlay):
    documents = rendered(overlay)
    assert of_kind(documents, "ClusterRole", "ClusterRoleBinding") == []
    rules = [rule for role in of_kind(documents, "Role") for rule in role["rules"]]
    assert rules
    assert [(rule, excess(rule)) for rule in rules if excess(rule)] == []


@pytest.mark.parametrize(
    "change",
    [
        {"verbs": ["*"]},
        {"verbs": ["escalate"]},
        {"apiGroups": ["*"]},
        {"resources": ["trainjobs", "*"]},
        {"resources": ["secrets"]},
        {"resources": ["secrets"], "resourceNames": ["a"], "verbs": ["get", "delete"]},
    ],
)
def test_an_excess_is_noticed(change):
    rule = {"apiGroups": [""], "resources": ["trainjobs"], "verbs": ["get"]}
    assert not excess(rule)
    assert excess(rule | change)


@every_overlay
def test_accounts_have_the_roles_that_they_need(overlay):
    documents = rendered(overlay)
    accounts = {
        (d["metadata"]["namespace"], d["metadata"]["name"])
        for d in of_kind(documents, "ServiceAccount")
    }
    roles = {
        (d["metadata"]["namespace"], d["metadata"]["name"]) for d in of_kind(documents, "Role")
    }
    bound = set()
    for binding in of_kind(documents, "RoleBinding"):
        assert (binding["metadata"]["namespace"], binding["roleRef"]["name"]) in roles
        bound |= {(s["namespace"], s["name"]) for s in binding["subjects"]}
    assert bound == {("xcflow-pipelines", "xcflow-pipeline"), ("xcflow", "xcflow-trigger")}
    assert bound <= accounts


# ------------------------------------------------------------------ connections

# Pods that the manifests do not make: of a run of Kubeflow Pipelines, of its API, of a client.
RUN = Workload("Pod", "run", "xcflow-pipelines", {"pipeline/runid": "1"}, {"containers": []})
API = Workload("Pod", "api", "kubeflow", {"app": "ml-pipeline"}, {"containers": []})
CLIENT = Workload("Pod", "client", "shop", {}, {"containers": []})
STRANGER = Workload("Pod", "stranger", "elsewhere", {}, {"containers": []})
NOTEBOOK = Workload("Pod", "notebook", "xcflow-pipelines", {}, {"containers": []})
NEWCOMER = Workload("Pod", "newcomer", "xcflow", {}, {"containers": []})
NAMESPACES = {"shop": {"xcflow-client": "true"}}
DNS = Workload("Pod", "dns", "kube-system", {"k8s-app": "kube-dns"}, {"containers": []})


def pods(overlay):
    made = {w.labels["app.kubernetes.io/name"]: w for w in workloads(rendered(overlay))}
    training = made["xcflow-training"]
    labels = training.labels | {"jobset.sigs.k8s.io/jobset-name": "job"}  # as JobSet does
    made["xcflow-training"] = dataclasses.replace(training, labels=labels)
    others = {w.name: w for w in (RUN, API, CLIENT, STRANGER, NOTEBOOK, NEWCOMER, DNS)}
    return made | others


ALLOWED = [
    ("client", "xcflow-serving", 8080),
    ("xcflow-serving", "mlflow", 5000),
    ("xcflow-trigger", "mlflow", 5000),
    ("mlflow-users", "mlflow", 5000),
    ("run", "mlflow", 5000),
    ("xcflow-training", "mlflow", 5000),
    ("xcflow-training", "xcflow-training", 29400),
    ("xcflow-training", "xcflow-training", 41234),
    ("xcflow-trigger", "api", 8888),
    ("run", "api", 8887),
    *((name, "dns", 53) for name in ("xcflow-serving", "mlflow", "xcflow-trigger", "run")),
]
REFUSED = [
    ("stranger", "xcflow-serving", 8080),
    ("client", "mlflow", 5000),
    ("client", "newcomer", 8080),
    ("newcomer", "api", 8888),
    ("newcomer", "mlflow", 5000),
    ("client", "xcflow-serving", 9090),
    ("stranger", "mlflow", 5000),
    ("xcflow-serving", "xcflow-trigger", 8080),
    ("xcflow-serving", "api", 8888),
    ("xcflow-trigger", "xcflow-serving", 8080),
    ("mlflow", "xcflow-serving", 8080),
    ("mlflow", "api", 8888),
    ("mlflow-users", "xcflow-serving", 8080),
    ("run", "xcflow-serving", 8080),
    ("notebook", "xcflow-training", 29400),
    ("xcflow-training", "api", 8888),
]
ALLOWED_IN_DEV = [
    ("mlflow", "postgres", 5432),
    ("mlflow", "seaweedfs", 8333),
    ("xcflow-trigger", "seaweedfs", 8333),
    ("run", "seaweedfs", 8333),
    ("xcflow-training", "seaweedfs", 8333),
]
REFUSED_IN_DEV = [
    ("xcflow-serving", "postgres", 5432),
    ("xcflow-trigger", "postgres", 5432),
    ("run", "postgres", 5432),
    ("xcflow-serving", "seaweedfs", 8333),
    ("postgres", "seaweedfs", 8333),
    ("client", "postgres", 5432),
    ("mlflow", "seaweedfs", 9333),
]


@every_overlay
@pytest.mark.parametrize(
    ("cases", "may"),
    [(ALLOWED, True), (REFUSED, False), (ALLOWED_IN_DEV, True), (REFUSED_IN_DEV, False)],
    ids=["allowed", "refused", "allowed in dev", "refused in dev"],
)
def test_connections(overlay, cases, may):
    policies, found = of_kind(rendered(overlay), "NetworkPolicy"), pods(overlay)
    cases = [case for case in cases if {case[0], case[1]} <= set(found)]
    assert cases or overlay != "dev"
    wrong = [
        (source, target, port)
        for source, target, port in cases
        if lets_speak(policies, found[source], found[target], port, NAMESPACES) is not may
    ]
    assert wrong == []


@pytest.mark.parametrize("overlay", ["prod", "prod-kserve"])
def test_ways_out_of_the_cluster(overlay):
    policies, found = of_kind(rendered(overlay), "NetworkPolicy"), pods(overlay)
    made = {w.labels["app.kubernetes.io/name"] for w in workloads(rendered(overlay))} | {"run"}
    ways = {
        (name, address, port)
        for name in made
        for address, port in (
            ("10.1.2.3", 5432), ("203.0.113.5", 5432),
            ("203.0.113.5", 443), ("169.254.169.254", 443),
        )
        if lets_out(policies, found[name], address, port)
    }  # fmt: skip
    assert ways == {
        ("mlflow", "10.1.2.3", 5432),
        ("mlflow", "203.0.113.5", 443),
        ("xcflow-trigger", "203.0.113.5", 443),
        ("xcflow-training", "203.0.113.5", 443),
        ("run", "203.0.113.5", 443),
    }
    free = lets_out([], found["xcflow-serving"], "203.0.113.5", 443)
    assert free, "without a policy everything is allowed"
