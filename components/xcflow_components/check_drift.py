"""Hold the catalogue against the last accepted one."""

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def check_drift(
    library_digest: str,
    config: str,
    accepted: str,
    dataset: dsl.Input[dsl.Dataset],
    drift: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Compare labels, documents and distributions; too large a difference fails the task.

    Args:
        library_digest: Identity of the library's code.
        config: The step's sections of the configuration.
        accepted: Digest of the bundle that carries the accepted catalogue's profile, empty where
            there is none.
        dataset: The canonical data set.
        drift: The whole data report.
        report: The same, readable offline.
        metrics: Counts of what differs.
    """
    from xcflow.steps.flow import bundle_input
    from xcflow.steps.task import run_task

    inputs = {"dataset": dataset.path, **bundle_input("accepted", accepted)}
    run_task("check_drift", config, inputs, drift, report, metrics)
