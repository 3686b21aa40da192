"""Make what a new stack lacks: the bucket, and the user as which the server asks for models.

Done again it changes nothing.
"""

import os
from pathlib import Path

import boto3
from mlflow.exceptions import MlflowException
from mlflow.server import get_app_client

SECRETS = Path(os.environ.get("SECRETS", "/run/secrets"))


def secret(name: str) -> str:
    """The content of a secret's file."""
    return (SECRETS / name).read_text(encoding="utf-8").strip()


def make_bucket(name: str) -> None:
    """Make the bucket of MLflow's files."""
    client = boto3.client(
        "s3",
        aws_access_key_id=secret("s3_access_key"),
        aws_secret_access_key=secret("s3_secret_key"),
    )
    if name not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=name)


def make_user(name: str) -> None:
    """Make a user that may read, as everyone may by default, and nothing else."""
    os.environ |= {
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": secret("admin_password"),
    }
    client = get_app_client("basic-auth", os.environ["MLFLOW_TRACKING_URI"])
    try:
        client.create_user(name, secret(f"{name}_password"))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


make_bucket(os.environ["BUCKET"])
make_user("serve")
