"""The retraining pipeline: from a catalogue to a promoted model.

What decides whether a step is taken from the cache is its arguments, its source and its image. So
the identity of the catalogue's content and of the library's code are arguments, and each step gets
only the sections of the configuration that it reads. Tasks that look at or change something outside
the pipeline (the run, the registry) are never cached, and no cached task takes an argument that
differs from run to run.
"""

from typing import Any

from kfp import dsl

from xcflow.registry.names import PROMOTE
from xcflow_components.build_index import build_index
from xcflow_components.check_drift import check_drift
from xcflow_components.cluster_labels import cluster_labels
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
from xcflow_pipelines.opening import open_run
from xcflow_pipelines.placement import Placement

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


def retraining_pipeline(place: Placement, limits: dsl.PipelineConfig | None = None) -> Any:
    """Build the pipeline.

    Args:
        place: Gives each task its settings.
        limits: How long a run may take and is kept, on a cluster.
    """

    def placed(task: Any, name: str) -> Any:
        return place(task, name, name not in UNCACHED)

    @dsl.pipeline(
        name=NAME,
        description="Retrain, evaluate against the champion, promote by gate.",
        pipeline_config=limits,
    )
    def retraining(
        run_name: str,
        catalogue_uri: str,
        catalogue_digest: str,
        library_digest: str,
        config: str,
    ) -> None:
        with dsl.ExitHandler(
            placed(notify(run_name=run_name, config=config), "notify"), name="retraining"
        ):
            run = open_run(
                placed,
                run_name=run_name,
                catalogue_uri=catalogue_uri,
                catalogue_digest=catalogue_digest,
                library_digest=library_digest,
                config=config,
            )
            step, digest = run.step, run.catalogue_digest
            dataset = step(
                validate_data, catalogue_uri=catalogue_uri, catalogue_digest=digest
            ).outputs["dataset"]
            accepted = placed(
                find_accepted(config=config, catalogue_digest=digest), "find_accepted"
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
            champion = placed(find_champion(config=config, bundle=bundle), "find_champion").output
            evaluation = step(
                evaluate_model, champion=champion, dataset=dataset, bundle=bundle
            ).outputs["evaluation"]
            gate = step(gate_model, evaluation=evaluation).outputs
            judged = {"evaluation": evaluation, "verdict": gate["verdict"]}
            recorded = placed(
                record_run(
                    run_name=run.name,
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
