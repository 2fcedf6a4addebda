"""Tests of the registry of bundles against a real S3 server."""
