"""Last task, whatever happened: close the run and say how it ended."""

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def notify(run_name: str, config: str, status: dsl.PipelineTaskFinalStatus) -> None:
    """Close the run in MLflow as finished or failed, and tell a webhook, where one is configured.

    Args:
        run_name: Name of the run, as it was given to ``configure``.
        config: The whole configuration as canonical JSON.
        status: How the tasks before ended; filled in by Kubeflow.
    """
    from xcflow.steps import flow

    flow.close_run(run_name, config, status.state, status.error_message or "")
