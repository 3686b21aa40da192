"""Writes the schemas by which the manifests of custom resources are validated, without a cluster.

KServe and Kubeflow Trainer generate their Python models from the types of their custom resources.
This turns the models that InferenceService, TrainJob and the training runtimes are made of into
JSON Schema. Types of Kubernetes itself become references to the definitions that come with
kubernetes-validate, and unknown fields are refused. What only the resource definitions bound
(numbers, lengths, choices) is added from ``BOUNDS``.

    pip download --no-deps kserve==0.21.0 kubeflow-trainer-api==2.3.0
    python tools/custom_resource_schemas.py --kserve KSERVE.whl --trainer TRAINER.whl
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

Schema = dict[str, Any]

OUTPUT = Path(__file__).parents[1] / "tests" / "contract" / "crds"
# How the schemas refer to a type of Kubernetes; the tests resolve it.
KUBERNETES = "kubernetes:"
# Bounds that the resource definitions set on the fields of a type, and the models do not know.
BOUNDS: Mapping[str, Mapping[str, Schema]] = {
    "V1beta1PredictorSpec": {"scaleMetric": {"enum": ["cpu", "memory", "concurrency", "rps"]}},
    "TrainerV1alpha1TrainJobSpec": {
        "activeDeadlineSeconds": {"minimum": 1},
        "managedBy": {
            "enum": ["trainer.kubeflow.org/trainjob-controller", "kueue.x-k8s.io/multikueue"]
        },
    },
    "TrainerV1alpha1Trainer": {"image": {"maxLength": 500}, "env": {"maxItems": 128}},
    "TrainerV1alpha1RuntimePatch": {"manager": {"minLength": 1, "maxLength": 253}},
    "TrainerV1alpha1ReplicatedJobPatch": {"name": {"minLength": 1, "maxLength": 253}},
    "JobsetV1alpha2FailurePolicy": {
        "restartStrategy": {"enum": ["Recreate", "BlockingRecreate", "InPlaceRestart"]}
    },
    "JobsetV1alpha2FailurePolicyRule": {
        "action": {"enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]}
    },
}
# A rule of TrainJob's definition: its name becomes a part of host names.
JOB_NAME: Schema = {"pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
_SCALARS: Mapping[str, Schema] = {
    "bool": {"type": "boolean"},
    "datetime": {"type": "string"},
    "float": {"type": "number"},
    "int": {"type": "integer"},
    "object": {},
    "str": {"type": "string"},
}
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
# Names under which KServe's models know types of Kubernetes by another rule than V1NAME.
_ELSEWHERE = {
    "K8sIoApiAppsV1DeploymentStrategy": "io.k8s.api.apps.v1.DeploymentStrategy",
    "K8sIoApiAutoscalingV2HorizontalPodAutoscalerBehavior": (
        "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerBehavior"
    ),
    "ResourceQuantity": _QUANTITY,
    "V1ObjectMeta": "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
    "V1beta1MetricQuantity": _QUANTITY,
}


def kserve_schema(wheel: Path) -> Schema:
    """The schema of InferenceService, from the models in KServe's wheel."""
    models = _declared_models(wheel)
    definitions = _reached(
        "V1beta1InferenceServiceSpec", lambda name: _from_declaration(*models[name]), set(models)
    )
    return {
        "$comment": f"from {wheel.name} (Apache-2.0) by tools/custom_resource_schemas.py",
        "$defs": definitions,
        "InferenceService": _resource("serving.kserve.io/v1beta1", "V1beta1InferenceServiceSpec"),
    }


def trainer_schema(wheel: Path) -> Schema:
    """The schemas of TrainJob and the training runtimes, from the models in Trainer's wheel."""
    sys.path.insert(0, str(wheel))
    models = importlib.import_module("kubeflow_trainer_api.models")
    known = {name for name in vars(models) if name.startswith(("Trainer", "Jobset", "Scheduling"))}
    names = {re.sub(r"\W", "", name).lower(): name for name in _kubernetes_types()}

    def schema(name: str) -> Schema:
        return _plain(getattr(models, name).model_json_schema(), names)

    definitions: Schema = {}
    for root in ("TrainerV1alpha1TrainJobSpec", "TrainerV1alpha1TrainingRuntimeSpec"):
        definitions |= _reached(root, schema, known)
    version = "trainer.kubeflow.org/v1alpha1"
    job = _resource(version, "TrainerV1alpha1TrainJobSpec")
    job["properties"]["metadata"] |= {"properties": {"name": JOB_NAME}}
    runtime = _resource(version, "TrainerV1alpha1TrainingRuntimeSpec")
    return {
        "$comment": f"from {wheel.name} (Apache-2.0) by tools/custom_resource_schemas.py",
        "$defs": definitions,
        "ClusterTrainingRuntime": runtime,
        "TrainingRuntime": runtime,
        "TrainJob": job,
    }


def _kubernetes_types() -> Iterable[str]:
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema"
    latest = max(
        (each.name for each in folder.iterdir() if each.name.endswith("-local-strict")),
        key=lambda name: [int(part) for part in re.findall(r"\d+", name)],
    )
    definitions = json.loads((folder / latest / "_definitions.json").read_text())
    return list(definitions["$defs"])


def _resource(version: str, spec: str) -> Schema:
    """A custom resource as one writes it: its status is no part of a manifest."""
    return {
        "type": "object",
        "properties": {
            "apiVersion": {"const": version},
            "kind": {"type": "string"},
            "metadata": {"$ref": KUBERNETES + _ELSEWHERE["V1ObjectMeta"], "required": ["name"]},
            "spec": {"$ref": f"#/$defs/{spec}"},
        },
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
    }


def _reached(root: str, schema: Callable[[str], Schema], known: set[str]) -> Schema:
    """The definitions that a type is made of, by name; each with its bounds."""
    definitions: Schema = {}
    waiting = [root]
    while waiting:
        name = waiting.pop()
        if name in definitions:
            continue
        found = schema(name)
        for field, bounds in BOUNDS.get(name, {}).items():
            found["properties"][field] |= bounds
        definitions[name] = found
        named = re.findall(r'"#/\$defs/(\w+)"', json.dumps(found))
        waiting.extend(each for each in named if each in known)
    return dict(sorted(definitions.items()))


def _declared_models(wheel: Path) -> dict[str, tuple[dict[str, str], dict[str, str], set[str]]]:
    """Of each class of KServe's models: its fields' types, their names in JSON, those required."""
    models = {}
    with zipfile.ZipFile(wheel) as files:
        for path in files.namelist():
            if not path.startswith("kserve/models/v1"):
                continue
            text = files.read(path).decode()
            for node in ast.parse(text).body:
                if isinstance(node, ast.ClassDef):
                    types, keys = (_literal(node, n) for n in ("openapi_types", "attribute_map"))
                    required = re.findall(r"Invalid value for `(\w+)`, must not be `None`", text)
                    models[node.name] = (types, keys, {keys[name] for name in required})
    return models


def _literal(node: ast.ClassDef, name: str) -> dict[str, str]:
    for statement in node.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
            found: dict[str, str] = ast.literal_eval(statement.value)
            return found
    return {}


def _from_declaration(
    types: Mapping[str, str], keys: Mapping[str, str], required: set[str]
) -> Schema:
    fields = {keys[name]: _typed(kind) for name, kind in types.items()}
    return _object(fields, required)


def _typed(kind: str) -> Schema:
    """The schema of a type as KServe's models write it, like ``list[V1Container]``."""
    if found := re.fullmatch(r"list\[(.+)\]", kind):
        return {"type": "array", "items": _typed(found[1])}
    if found := re.fullmatch(r"dict\(str, (.+)\)", kind):
        return {"type": "object", "additionalProperties": _typed(found[1])}
    if kind in _SCALARS:
        return dict(_SCALARS[kind])
    if kind in _ELSEWHERE:
        return {"$ref": KUBERNETES + _ELSEWHERE[kind]}
    if found := re.fullmatch(r"V1([A-Z]\w+)", kind):
        return {"$ref": f"{KUBERNETES}io.k8s.api.core.v1.{found[1]}"}
    return {"$ref": f"#/$defs/{kind}"}


def _plain(schema: Schema, kubernetes: Mapping[str, str]) -> Schema:
    """The schema of an object as pydantic gives it, without what only pydantic needs.

    Args:
        schema: The schema; definitions of other types in it are left out.
        kubernetes: Names of Kubernetes' types, by the same in small letters without dots.
    """

    def plain(part: Schema) -> Schema:
        if options := part.get("anyOf"):  # an optional field
            (part,) = (option for option in options if option.get("type") != "null")
        if "$ref" in part:
            name = part["$ref"].rpartition("/")[2]
            foreign = kubernetes.get(name.lower())
            return {"$ref": KUBERNETES + foreign if foreign else f"#/$defs/{name}"}
        kept: Schema = {"type": part["type"]}
        for key in ("items", "additionalProperties"):
            if key in part:
                kept[key] = plain(part[key]) if isinstance(part[key], dict) else part[key]
        return kept

    fields = {name: plain(part) for name, part in schema["properties"].items()}
    return _object(fields, set(schema.get("required", ())))


def _object(fields: Schema, required: set[str]) -> Schema:
    found: Schema = {"type": "object", "properties": fields, "additionalProperties": False}
    return found | ({"required": sorted(required)} if required else {})


def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kserve", type=Path, required=True, help="the wheel of kserve")
    parser.add_argument("--trainer", type=Path, required=True, help="of kubeflow-trainer-api")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    for name, schema in (
        ("serving.kserve.io.json", kserve_schema(arguments.kserve)),
        ("trainer.kubeflow.org.json", trainer_schema(arguments.trainer)),
    ):
        (arguments.output / name).write_text(json.dumps(schema, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    _main()
