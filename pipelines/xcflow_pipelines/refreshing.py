"""The refresh of the champion: it takes in another catalogue without training.

The same tasks as in the retraining pipeline, with one in place of training. The champion is looked
up first, because the candidate is made from it; it is also what the candidate is compared with and
what the catalogue is held against. Where another model becomes champion meanwhile, the promotion is
refused.
"""

from typing import Any

from kfp import dsl

from xcflow.registry.names import PROMOTE
from xcflow_components.check_drift import check_drift
from xcflow_components.evaluate_model import evaluate_model
from xcflow_components.find_refreshed import find_refreshed
from xcflow_components.gate_model import gate_model
from xcflow_components.notify import notify
from xcflow_components.promote_model import promote_model
from xcflow_components.record_refresh import record_refresh
from xcflow_components.refresh_model import refresh_model
from xcflow_components.validate_data import validate_data
from xcflow_pipelines.opening import open_run
from xcflow_pipelines.placement import Placement

NAME = "xcflow-catalogue-refresh"
# Tasks whose result depends on something outside the pipeline.
UNCACHED = ("configure", "find_refreshed", "record_refresh", "promote_model", "notify")


def refreshing_pipeline(place: Placement, limits: dsl.PipelineConfig | None = None) -> Any:
    """Build the pipeline.

    Args:
        place: Gives each task its settings.
        limits: How long a run may take and is kept, on a cluster.
    """

    def placed(task: Any, name: str) -> Any:
        return place(task, name, name not in UNCACHED)

    @dsl.pipeline(
        name=NAME,
        description="Let the champion take in a catalogue, compare the two, promote by gate.",
        pipeline_config=limits,
    )
    def catalogue_refresh(
        run_name: str,
        catalogue_uri: str,
        catalogue_digest: str,
        library_digest: str,
        config: str,
    ) -> None:
        with dsl.ExitHandler(
            placed(notify(run_name=run_name, config=config), "notify"), name="refresh"
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
            found = placed(find_refreshed(config=config, catalogue_digest=digest), "find_refreshed")
            champion = found.after(run.task).output  # it marks the run that was opened
            # Without a champion to refresh, nothing is read.
            dataset = (
                step(validate_data, catalogue_uri=catalogue_uri, catalogue_digest=digest)
                .after(found)
                .outputs["dataset"]
            )
            drift = step(check_drift, accepted=champion, dataset=dataset)
            refreshed = step(refresh_model, champion=champion, dataset=dataset).after(drift)
            bundle = refreshed.outputs["bundle"]
            evaluation = step(
                evaluate_model, champion=champion, dataset=dataset, bundle=bundle
            ).outputs["evaluation"]
            gate = step(gate_model, evaluation=evaluation).outputs
            judged = {"evaluation": evaluation, "verdict": gate["verdict"]}
            recorded = placed(
                record_refresh(
                    run_name=run.name,
                    config=config,
                    dataset=dataset,
                    drift=drift.outputs["drift"],
                    bundle=bundle,
                    **judged,
                ),
                "record_refresh",
            )
            with dsl.If(gate["Output"] == PROMOTE, name="promote"):
                step(promote_model, bundle=bundle, **judged).after(recorded)

    return catalogue_refresh
