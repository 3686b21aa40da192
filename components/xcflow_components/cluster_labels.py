"""Group labels that share an auxiliary vector."""

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def cluster_labels(
    library_digest: str,
    config: str,
    dataset: dsl.Input[dsl.Dataset],
    clusters: dsl.Output[dsl.Artifact],
) -> None:
    """Map each label to its auxiliary vector by balanced hierarchical clustering.

    Args:
        library_digest: Identity of the library's code.
        config: The step's sections of the configuration.
        dataset: The canonical data set.
        clusters: The map.
    """
    from xcflow.steps.task import run_task

    run_task("cluster_labels", config, {"dataset": dataset.path}, clusters)
