"""Module II: train a classifier for each label on top of the frozen encoder."""

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_classifier(
    library_digest: str,
    config: str,
    dataset: dsl.Input[dsl.Dataset],
    embeddings: dsl.Input[dsl.Dataset],
    classifier: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Train classifiers that start at the augmented label vectors.

    Args:
        library_digest: Identity of the library's code.
        config: The step's sections of the configuration.
        dataset: The canonical data set.
        embeddings: Vectors of documents and labels.
        classifier: The classifiers that were best on the validation split.
        metrics: Last values of the training curves.
    """
    from xcflow.steps.task import run_task
    from xcflow_components.nodes.running import run_on_nodes

    inputs = {"dataset": dataset.path, "embeddings": embeddings.path}
    run_task("train_classifier", config, inputs, classifier, metrics=metrics, work=run_on_nodes)
