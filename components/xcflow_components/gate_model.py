"""Decide on the candidate."""

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gate_model(
    library_digest: str,
    config: str,
    evaluation: dsl.Input[dsl.Artifact],
    verdict: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> str:
    """Compare candidate and champion, or candidate and baselines, and say what should happen.

    Args:
        library_digest: Identity of the library's code.
        config: The step's sections of the configuration, with the thresholds.
        evaluation: The evaluation of this run.
        verdict: The verdict with its reasons.
        report: The verdict in words.

    Returns:
        PROMOTE, HOLD or REJECT.
    """
    from xcflow.steps.flow import decision
    from xcflow.steps.task import run_task

    run_task("gate_model", config, {"evaluation": evaluation.path}, verdict, report)
    return decision(verdict.path)
