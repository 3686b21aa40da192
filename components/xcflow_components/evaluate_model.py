"""Measure candidate, champion and baselines on the same frozen test split."""

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate_model(
    library_digest: str,
    config: str,
    champion: str,
    dataset: dsl.Input[dsl.Dataset],
    bundle: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Evaluate the candidate beside the baselines and, where there is one, the champion.

    Args:
        library_digest: Identity of the library's code.
        config: The step's sections of the configuration.
        champion: Digest of the champion's bundle, empty where there is none.
        dataset: The canonical data set.
        bundle: The candidate.
        evaluation: Figures, and the results of each document.
        report: The evaluation report, readable offline.
        metrics: The main figures.
    """
    from xcflow.steps.flow import bundle_input
    from xcflow.steps.task import run_task
    from xcflow_components.nodes.running import run_on_nodes

    inputs = {"dataset": dataset.path, "bundle": bundle.path}
    inputs |= bundle_input("champion", champion)
    run_task("evaluate_model", config, inputs, evaluation, report, metrics, work=run_on_nodes)
