"""Embed documents and augmented labels."""

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def export_embeddings(
    library_digest: str,
    config: str,
    dataset: dsl.Input[dsl.Dataset],
    encoder: dsl.Input[dsl.Model],
    embeddings: dsl.Output[dsl.Dataset],
) -> None:
    """Write the vectors of all documents and labels in memory-mapped shards.

    Args:
        library_digest: Identity of the library's code.
        config: The step's sections of the configuration.
        dataset: The canonical data set.
        encoder: The trained encoder.
        embeddings: The vectors.
    """
    from xcflow_components.cluster.train_job import run_shared_task

    inputs = {"dataset": dataset, "encoder": encoder}
    run_shared_task("export_embeddings", config, inputs, embeddings)
