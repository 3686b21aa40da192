"""Folders and files on this machine and under ``s3://`` behind one small interface.

Credentials, region, endpoint and certificates come from where boto3 looks for them (environment,
configuration files, instance role); see ``docs/storage.md``.
"""

from xcflow.storage.files import (
    Listed,
    create_file,
    listing,
    read_file,
    remove_file,
    replace_file,
)
from xcflow.storage.folders import (
    delivered,
    exists,
    fetch,
    fetch_file,
    publish,
    publish_file,
    require_publishable,
)
from xcflow.storage.places import copy_name, is_remote

__all__ = [
    "Listed",
    "copy_name",
    "create_file",
    "delivered",
    "exists",
    "fetch",
    "fetch_file",
    "is_remote",
    "listing",
    "publish",
    "publish_file",
    "read_file",
    "remove_file",
    "replace_file",
    "require_publishable",
]
