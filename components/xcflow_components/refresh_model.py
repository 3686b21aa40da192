"""Let the champion take in the catalogue without training."""

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def refresh_model(
    library_digest: str,
    config: str,
    champion: str,
    dataset: dsl.Input[dsl.Dataset],
    bundle: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Write the bundle that the champion becomes with the labels and documents of a catalogue.

    Args:
        library_digest: Identity of the library's code.
        config: The step's sections of the configuration.
        champion: Digest of the champion's bundle.
        dataset: The canonical data set.
        bundle: The candidate.
        metrics: Its sizes.
    """
    from xcflow.steps.flow import bundle_input
    from xcflow.steps.task import run_task

    inputs = {"dataset": dataset.path, **bundle_input("champion", champion)}
    run_task("refresh_model", config, inputs, bundle, metrics=metrics)
