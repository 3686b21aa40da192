"""Record the run's results, also those that came from the cache."""

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def record_run(
    run_name: str,
    config: str,
    dataset: dsl.Input[dsl.Dataset],
    drift: dsl.Input[dsl.Artifact],
    clusters: dsl.Input[dsl.Artifact],
    encoder: dsl.Input[dsl.Model],
    embeddings: dsl.Input[dsl.Dataset],
    classifier: dsl.Input[dsl.Model],
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
        drift: The data report, with what differs from the last accepted catalogue.
        clusters: The map from labels to auxiliary vectors.
        encoder: The trained encoder.
        embeddings: Vectors of documents and labels.
        classifier: The trained classifiers.
        bundle: The model bundle.
        evaluation: The evaluation.
        verdict: The verdict.
        summary: What came out, as JSON.
    """
    from xcflow.steps import flow

    trained = (dataset, drift, clusters, encoder, embeddings, classifier, bundle)
    flow.record_run(run_name, config, (*trained, evaluation, verdict), summary.path)
