"""What the S3 servers share."""

from __future__ import annotations

import boto3


def s3_environment(endpoint: str, access_key: str, secret_key: str) -> dict[str, str]:
    """Return the variables that lead to an S3 server, and keep out what the machine has for AWS."""
    return {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
        "S3_ENDPOINT": endpoint,
        "S3_USE_HTTPS": "0",
    }


def s3_client(environment: dict[str, str]) -> boto3.client:
    """Return a bare boto3 client, to look at a server past fairway."""
    return boto3.session.Session().client(
        "s3",
        endpoint_url=f"http://{environment['S3_ENDPOINT']}",
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )


def make_bucket(environment: dict[str, str], name: str) -> str:
    """Make a bucket and return its URI."""
    client = s3_client(environment)
    try:
        client.create_bucket(Bucket=name)
    finally:
        client.close()
    return f"s3://{name}"
