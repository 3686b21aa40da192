"""Module I: train the encoder that documents and labels share, and the auxiliary vectors."""

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_encoder(
    library_digest: str,
    config: str,
    dataset: dsl.Input[dsl.Dataset],
    clusters: dsl.Input[dsl.Artifact],
    encoder: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Train encoder and auxiliary vectors with hard negatives from clustered batches.

    Args:
        library_digest: Identity of the library's code.
        config: The step's sections of the configuration.
        dataset: The canonical data set.
        clusters: The map from labels to auxiliary vectors.
        encoder: The encoder that was best on the validation split.
        metrics: Last values of the training curves.
    """
    from xcflow.steps.task import run_task
    from xcflow_components.nodes.running import run_on_nodes

    inputs = {"dataset": dataset.path, "clusters": clusters.path}
    run_task("train_encoder", config, inputs, encoder, metrics=metrics, work=run_on_nodes)
