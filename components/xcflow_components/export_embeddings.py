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
    from xcflow.steps.task import run_task
    from xcflow_components.nodes.running import run_on_nodes

    inputs = {"dataset": dataset.path, "encoder": encoder.path}
    run_task("export_embeddings", config, inputs, embeddings, work=run_on_nodes)
