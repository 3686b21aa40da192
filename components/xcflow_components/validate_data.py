"""Read and check the catalogue; write the canonical data set."""

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate_data(
    catalogue_uri: str,
    catalogue_digest: str,
    library_digest: str,
    config: str,
    dataset: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Validate the catalogue and write it as memory-mapped, tokenised arrays.

    Hard findings fail the task; soft ones stand in the report.

    Args:
        catalogue_uri: Where the catalogue stands.
        catalogue_digest: Identity of its content; refused where the content is another by now.
        library_digest: Identity of the library's code.
        config: The step's sections of the configuration.
        dataset: The canonical data set.
        report: The data report, readable offline.
        metrics: Sizes and counts of findings.
    """
    from xcflow.steps.task import run_task

    inputs = {"catalogue": catalogue_uri}
    expected = {"catalogue": catalogue_digest}
    run_task("validate_data", config, inputs, dataset, report, metrics, expected=expected)
