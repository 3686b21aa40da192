"""Record the results of a refresh, also those that came from the cache."""

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def record_refresh(
    run_name: str,
    config: str,
    dataset: dsl.Input[dsl.Dataset],
    drift: dsl.Input[dsl.Artifact],
    bundle: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    verdict: dsl.Input[dsl.Artifact],
    summary: dsl.Output[dsl.Artifact],
) -> None:
    """Write figures, reports and the model to MLflow, and a summary for whoever started the run.

    Never cached. Trouble with the tracking store is reported and does not fail the task.

    Args:
        run_name: Name of the run.
        config: The whole configuration as canonical JSON.
        dataset: The canonical data set.
        drift: The data report, with what differs from the champion's catalogue.
        bundle: The refreshed model.
        evaluation: The evaluation.
        verdict: The verdict.
        summary: What came out, as JSON.
    """
    from xcflow.steps import flow

    outputs = (dataset, drift, bundle, evaluation, verdict)
    flow.record_run(run_name, config, outputs, summary.path, flow.RECORDED_OF_REFRESH)
