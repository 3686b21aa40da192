"""Say which catalogue the new one has to be held against."""

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def find_accepted(config: str, catalogue_digest: str) -> str:
    """Look up the model whose catalogue was accepted last.

    Never cached: the registry is outside the pipeline. The check that takes the answer as an
    argument is run again exactly when the answer changes.

    Args:
        config: The whole configuration as canonical JSON.
        catalogue_digest: Identity of the catalogue's content.

    Returns:
        The digest of the champion's bundle, empty where there is none. Where the champion was
        trained on this very catalogue: of the latest one before it that was not.
    """
    from xcflow.steps import flow

    return flow.find_accepted(config, catalogue_digest)
