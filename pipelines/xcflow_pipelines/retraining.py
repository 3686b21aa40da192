"""The retraining pipeline: from a catalogue to a promoted model.

What decides whether a step is taken from the cache is its arguments, its source and its image. So
the identity of the catalogue's content and of the library's code are arguments, and each step gets
only the sections of the configuration that it reads. Tasks that look at or change something outside
the pipeline (the run, the registry) are never cached, and no cached task takes an argument that
differs from run to run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp import dsl, kubernetes

from xcflow.config import Config, ResourcesConfig
from xcflow.registry.names import PROMOTE, RUN_KEY_VARIABLE
from xcflow.registry.tracking import tracking_environment
from xcflow_components.build_index import build_index
from xcflow_components.check_drift import check_drift
from xcflow_components.cluster_labels import cluster_labels
from xcflow_components.configure import configure
from xcflow_components.evaluate_model import evaluate_model
from xcflow_components.export_embeddings import export_embeddings
from xcflow_components.find_accepted import find_accepted
from xcflow_components.find_champion import find_champion
from xcflow_components.gate_model import gate_model
from xcflow_components.notify import notify
from xcflow_components.promote_model import promote_model
from xcflow_components.record_run import record_run
from xcflow_components.train_classifier import train_classifier
from xcflow_components.train_encoder import train_encoder
from xcflow_components.validate_data import validate_data

NAME = "xcflow-retraining"
# Tasks whose result depends on something outside the pipeline.
UNCACHED = (
    "configure",
    "find_accepted",
    "find_champion",
    "record_run",
    "promote_model",
    "notify",
)
# On a cluster a task finds the tracked run of its pipeline by this label of its pod.
RUN_ID_LABEL = "metadata.labels['pipeline/runid']"


def retraining_pipeline(
    resources: ResourcesConfig, environment: Mapping[str, str] | None = None
) -> Any:
    """Build the pipeline.

    Args:
        resources: What each task asks of a cluster; the local runner ignores it.
        environment: Variables that each task gets. Kubeflow's local cache, unlike a cluster's,
            sees them, so for a local run they belong to the process instead.
    """

    def place(task: Any, name: str) -> Any:
        """Settings of each task; caching set on the pipeline would not reach all of them."""
        wanted = getattr(resources, name, resources.other)
        task.set_caching_options(enable_caching=name not in UNCACHED)
        task.set_cpu_request(wanted.cpu)
        task.set_memory_request(wanted.memory).set_memory_limit(wanted.memory)
        if wanted.accelerators:
            task.set_accelerator_type(wanted.accelerator)
            task.set_accelerator_limit(wanted.accelerators)
        for variable, value in (environment or {}).items():
            task.set_env_variable(variable, value)
        return kubernetes.use_field_path_as_env(task, RUN_KEY_VARIABLE, RUN_ID_LABEL)

    @dsl.pipeline(name=NAME, description="Retrain, evaluate against the champion, promote by gate.")
    def retraining(
        run_name: str,
        catalogue_uri: str,
        catalogue_digest: str,
        library_digest: str,
        config: str,
    ) -> None:
        with dsl.ExitHandler(place(notify(run_name=run_name), "notify"), name="retraining"):
            sections = place(
                configure(
                    run_name=run_name,
                    catalogue_uri=catalogue_uri,
                    catalogue_digest=catalogue_digest,
                    library_digest=library_digest,
                    config=config,
                ),
                "configure",
            ).outputs

            def step(component: Any, **arguments: Any) -> Any:
                name = component.python_func.__name__
                settings = sections[name]
                return place(
                    component(library_digest=library_digest, config=settings, **arguments), name
                )

            dataset = step(
                validate_data, catalogue_uri=catalogue_uri, catalogue_digest=catalogue_digest
            ).outputs["dataset"]
            accepted = place(
                find_accepted(config=config, catalogue_digest=catalogue_digest), "find_accepted"
            ).output
            drift = step(check_drift, accepted=accepted, dataset=dataset)
            # Training waits for the check, but does not depend on what it found.
            clusters = step(cluster_labels, dataset=dataset).after(drift).outputs["clusters"]
            encoder = step(train_encoder, dataset=dataset, clusters=clusters).outputs["encoder"]
            embeddings = step(export_embeddings, dataset=dataset, encoder=encoder).outputs[
                "embeddings"
            ]
            classifier = step(train_classifier, dataset=dataset, embeddings=embeddings).outputs[
                "classifier"
            ]
            trained = {
                "dataset": dataset,
                "encoder": encoder,
                "embeddings": embeddings,
                "classifier": classifier,
            }
            bundle = step(build_index, **trained).outputs["bundle"]
            champion = place(find_champion(config=config, bundle=bundle), "find_champion").output
            evaluation = step(
                evaluate_model, champion=champion, dataset=dataset, bundle=bundle
            ).outputs["evaluation"]
            gate = step(gate_model, evaluation=evaluation).outputs
            judged = {"evaluation": evaluation, "verdict": gate["verdict"]}
            recorded = place(
                record_run(
                    run_name=run_name,
                    config=config,
                    drift=drift.outputs["drift"],
                    clusters=clusters,
                    bundle=bundle,
                    **trained,
                    **judged,
                ),
                "record_run",
            )
            with dsl.If(gate["Output"] == PROMOTE, name="promote"):
                step(promote_model, bundle=bundle, **judged).after(recorded)

    return retraining


def compile_pipeline(config: Config, path: Path) -> None:
    """Write the pipeline as IR YAML, for a cluster."""
    from kfp import compiler

    environment = tracking_environment(config.tracking)
    pipeline = retraining_pipeline(config.resources, environment)
    compiler.Compiler().compile(pipeline, str(path))


if __name__ == "__main__":
    import sys

    compile_pipeline(Config(), Path(sys.argv[1]))
