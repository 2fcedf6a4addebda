"""The rules by which KFP 2.17.0's launcher finds an artifact's object store, in Python.

Source: backend/src/v2/config/minio.go, s3.go and env.go. Checked against KFP's own cases in
test_launcher.py.
"""

from typing import Any

import yaml

# getDefaultMinioSessionInfo, with path style as objectstore.StructuredS3Params sets it
BUILT_IN = {
    "endpoint": "seaweedfs.kubeflow:9000",
    "region": "minio",
    "disableSSL": True,
    "forcePathStyle": True,
    "maxRetries": 5,
    "secretName": "mlpipeline-minio-artifact",
    "accessKeyKey": "accesskey",
    "secretKeyKey": "secretkey",
}


def store_session(providers: str, uri: str) -> dict[str, Any]:
    """Return endpoint, region, flags and secret for an artifact's minio:// URI.

    Raises ValueError where the launcher refuses the configuration.
    """
    provider = (yaml.safe_load(providers) or {}).get("minio") or {}
    default, overrides = provider.get("default"), provider.get("overrides")
    if default is None and overrides is None:
        return dict(BUILT_IN)
    if not default or not default.get("credentials"):
        raise ValueError("missing default credentials")

    session = {"disableSSL": False, "forcePathStyle": True, "maxRetries": 5} | _settings(default)
    bucket, _, prefix = uri.removeprefix("minio://").partition("/")
    for override in overrides or []:
        if override["bucketName"] == bucket and f"{prefix}/".startswith(
            override.get("keyPrefix", "")
        ):
            if "maxRetries" in override and "maxRetries" not in default:
                raise ValueError("the launcher panics: it reads the default's maxRetries")
            return session | _settings(override)
    return session


def _settings(section: dict[str, Any]) -> dict[str, Any]:
    for name in ("disableSSL", "forcePathStyle"):
        if not isinstance(section.get(name, True), bool):
            raise ValueError(f"{name} must be a boolean")
    if not section.get("credentials"):
        raise ValueError("missing override credentials")

    reference = section["credentials"].get("secretRef")
    if not section["credentials"].get("fromEnv") and not reference:
        raise ValueError("missing override secretref")
    known = ("endpoint", "region", "disableSSL", "forcePathStyle", "maxRetries")
    return {name: section[name] for name in known if name in section} | (reference or {})
