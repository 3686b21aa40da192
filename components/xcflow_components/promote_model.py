"""Make the candidate the champion."""

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote_model(
    library_digest: str,
    config: str,
    bundle: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    verdict: dsl.Input[dsl.Artifact],
    promotion: dsl.Output[dsl.Artifact],
) -> None:
    """Register the bundle as a model version and move the alias ``champion`` to it.

    Never cached. Refuses where the champion is no longer the one that the verdict is about.

    Args:
        library_digest: Identity of the library's code.
        config: The step's sections of the configuration.
        bundle: The candidate.
        evaluation: What the verdict is about.
        verdict: The verdict of this run.
        promotion: What was moved, from where to where.
    """
    from xcflow.steps.task import run_task

    inputs = {"bundle": bundle.path, "evaluation": evaluation.path, "verdict": verdict.path}
    run_task("promote_model", config, inputs, promotion)
