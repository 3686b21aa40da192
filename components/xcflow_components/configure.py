"""First task: open the tracked run, give each step the sections of the configuration it reads."""

from typing import NamedTuple

from kfp import dsl

from xcflow_components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def configure(
    run_name: str,
    catalogue_uri: str,
    catalogue_digest: str,
    library_digest: str,
    config: str,
) -> NamedTuple(  # type: ignore[valid-type]
    "Opened",
    [
        ("run_name", str),
        ("catalogue_digest", str),
        ("validate_data", str),
        ("check_drift", str),
        ("cluster_labels", str),
        ("train_encoder", str),
        ("export_embeddings", str),
        ("train_classifier", str),
        ("build_index", str),
        ("refresh_model", str),
        ("evaluate_model", str),
        ("gate_model", str),
        ("promote_model", str),
    ],
):
    """Open the run in MLflow and split the configuration, so that each step sees only its part.

    Never cached. Refuses to go on where the image holds another library than the run was made for.

    Args:
        run_name: Name of the run in MLflow; ``{time}`` in it becomes the time of its start, for
            runs that a schedule starts.
        catalogue_uri: Where the catalogue stands.
        catalogue_digest: Identity of the catalogue's content; empty to look what stands there now.
        library_digest: Identity of the library's code.
        config: The whole configuration as canonical JSON.

    Returns:
        The run's name, the identity of the catalogue's content, and for each step the sections
        that it reads, as canonical JSON.
    """
    from xcflow.steps import flow

    return flow.open_run(run_name, catalogue_uri, catalogue_digest, library_digest, config)
