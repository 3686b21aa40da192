"""Say which model has to take in the catalogue."""

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def find_refreshed(config: str, catalogue_digest: str) -> str:
    """Look up the champion in the registry, and mark the run as its refresh.

    Never cached: the champion is a fact outside the pipeline. Fails where there is no champion, or
    where it was made of this very catalogue.

    Args:
        config: The whole configuration as canonical JSON.
        catalogue_digest: Identity of the catalogue's content.

    Returns:
        The digest of the champion's bundle.
    """
    from xcflow.steps import flow

    return flow.find_refreshed(config, catalogue_digest)
