"""The command `xcflow seal`: a catalogue's own manifest, written beside its files."""

from __future__ import annotations

from xcflow.catalogue.seal import NAME, Seal
from xcflow.config import DataConfig
from xcflow.errors import DataError
from xcflow.home import Home
from xcflow.storage import is_remote, listing, replace_file
from xcflow_pipelines.measure import catalogue_folder
from xcflow_pipelines.shell import BadUsageError


def seal_catalogue(config: DataConfig, data: str, home: Home) -> Seal:
    """Read a whole catalogue and write down what it holds.

    Args:
        config: How it is read.
        data: Its folder or URI.
        home: Keeps copies of remote catalogues.

    Raises:
        BadUsageError: There is no such folder.
        DataError: It cannot be read, or was changed meanwhile.
        StorageError: The seal cannot be written.
    """
    if not data:
        raise BadUsageError("--data: give the folder or URI of a catalogue")
    before = listing(data) if is_remote(data) else []
    seal = Seal.of(catalogue_folder(data, home), config)
    if is_remote(data) and listing(data) != before:
        raise DataError("was changed while it was read: seal it when it is whole", data)
    replace_file(f"{data.rstrip('/')}/{NAME}", seal.to_bytes())
    return seal
