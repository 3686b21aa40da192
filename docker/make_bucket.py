"""Make the bucket of MLflow's files, where it is missing. Credentials and address: boto3's own."""

import os

import boto3

name = os.environ["BUCKET"]
client = boto3.client("s3")
if name not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
    client.create_bucket(Bucket=name)
