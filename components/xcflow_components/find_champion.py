"""Say which model the candidate has to be compared with."""

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def find_champion(config: str, bundle: dsl.Input[dsl.Model]) -> str:
    """Look up the champion in the registry.

    Never cached: the champion is a fact outside the pipeline. The evaluation, which takes the
    answer as an argument, is run again exactly when the answer changes.

    Args:
        config: The whole configuration as canonical JSON.
        bundle: The candidate.

    Returns:
        The digest of the champion's bundle, empty where there is none. Where the candidate is the
        champion already: what it was compared with when it was promoted.
    """
    from xcflow.steps import flow

    return flow.find_champion(config, bundle.path)
