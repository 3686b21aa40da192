"""Last task, whatever happened: close the run and say how it ended."""

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def notify(run_name: str, status: dsl.PipelineTaskFinalStatus) -> None:
    """Close the run in MLflow as finished or failed.

    Args:
        run_name: Name of the run.
        status: How the tasks before ended; filled in by Kubeflow.
    """
    from xcflow.steps import flow

    flow.close_run(run_name, status.state, status.error_message or "")
