"""Build the search indexes, fit the fusion, and pack the model bundle."""

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def build_index(
    library_digest: str,
    config: str,
    dataset: dsl.Input[dsl.Dataset],
    encoder: dsl.Input[dsl.Model],
    embeddings: dsl.Input[dsl.Dataset],
    classifier: dsl.Input[dsl.Model],
    bundle: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Write the bundle: everything that a prediction needs, in one folder.

    Args:
        library_digest: Identity of the library's code.
        config: The step's sections of the configuration.
        dataset: The canonical data set.
        encoder: The trained encoder.
        embeddings: Vectors of documents and labels.
        classifier: The trained classifiers.
        bundle: The model bundle.
        metrics: Recall of the indexes against exact search.
    """
    from xcflow.steps.task import run_task

    inputs = {"dataset": dataset.path, "encoder": encoder.path}
    inputs |= {"embeddings": embeddings.path, "classifier": classifier.path}
    run_task("build_index", config, inputs, bundle, metrics=metrics)
