"""The S3 server for the tests of this folder."""

from tests.s3 import bucket, s3

__all__ = ["bucket", "s3"]
