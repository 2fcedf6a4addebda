"""Location of a run's artifacts, resolved from the ConfigMap `kfp-launcher`.

The rules are those of KFP's launcher.

Source: KFP 2.17.0, backend/src/v2/config/{env,s3,minio}.go and
backend/src/v2/objectstore/config.go.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from components.shared.contracts.errors import ConfigError

CONFIG_MAP = "kfp-launcher"
KFP_SECRET = "mlpipeline-minio-artifact"  # noqa: S105 - a name
_DEFAULT_ROOT = "minio://mlpipeline/v2/artifacts"
_DEFAULT_ENDPOINT = "seaweedfs.kubeflow:9000"
_CORRECT = "correct it there: every step would fail"
_ROOT = re.compile(r"(minio|s3)://([^/?]+)/?([^?]*)(\?.+)?")


@dataclass(frozen=True, kw_only=True)
class LauncherStore:
    """The object store of the pipeline root.

    secret: "" if pods take their credentials from the environment.
    """

    root: str
    bucket: str
    prefix: str
    endpoint: str
    region: str
    secure: bool
    secret: str = ""
    access_key: str = ""
    secret_key: str = ""


def launcher_store(data: Mapping[str, str] | None) -> LauncherStore:
    """Resolve the data of `kfp-launcher`, None where there is no such ConfigMap.

    Raises ConfigError where the launcher would refuse the settings.
    """
    data = data or {}
    root = data.get("defaultPipelineRoot") or _DEFAULT_ROOT
    parts = _ROOT.fullmatch(root)
    if parts is None:
        raise ConfigError(
            f"defaultPipelineRoot {root!r} of {CONFIG_MAP} is neither minio:// nor s3://;"
            f" {_CORRECT}"
        )

    scheme, bucket, prefix, query = parts.groups()
    location: dict[str, Any] = {
        "root": root,
        "bucket": bucket,
        "prefix": prefix.rstrip("/") + "/" if prefix else "",
    }

    settings = _mapping(_providers(data.get("providers", "")).get(scheme), scheme)
    default = settings.get("default")
    overrides = settings.get("overrides") or settings.get("Overrides")

    if query or (default is None and overrides is None):
        if scheme == "minio" and not query:
            return LauncherStore(**location, **_kfp_store())
        return LauncherStore(**location, endpoint="s3.amazonaws.com", region="", secure=True)

    default = _mapping(default, f"{scheme}.default")
    if not default.get("credentials"):
        raise ConfigError(
            f"provider {scheme} of {CONFIG_MAP} has no default credentials;"
            " add default.credentials there"
        )

    override = _override(overrides or [], bucket, location["prefix"])

    return LauncherStore(**location, **_settings(default, override))


def service_of(endpoint: str, namespace: str) -> str:
    """Return an address inside the cluster as service.namespace:port.

    The short and the long form of an address give the same result.
    """
    host, colon, port = re.sub(r"^https?://", "", endpoint).partition(":")
    host = re.sub(r"\.svc(\.cluster\.local)?$", "", host)
    return f"{host}{'' if '.' in host else '.' + namespace}{colon}{port}"


def _kfp_store() -> dict[str, Any]:
    return {
        "endpoint": _DEFAULT_ENDPOINT,
        "region": "minio",
        "secure": False,
        "secret": KFP_SECRET,
        "access_key": "accesskey",
        "secret_key": "secretkey",
    }


def _settings(default: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Merge an override into the default; only the credentials are replaced as a whole."""
    credentials = _mapping((override or default).get("credentials"), "credentials")
    settings: dict[str, Any] = {
        "endpoint": str(override.get("endpoint") or default.get("endpoint") or "s3.amazonaws.com"),
        "region": str(override.get("region") or default.get("region") or ""),
        "secure": not override.get("disableSSL", default.get("disableSSL", False)),
    }
    if credentials.get("fromEnv"):
        return settings

    reference = _mapping(credentials.get("secretRef"), "secretRef")
    names = [
        str(reference.get(key) or "") for key in ("secretName", "accessKeyKey", "secretKeyKey")
    ]
    if not all(names):
        raise ConfigError(
            f"the credentials in {CONFIG_MAP} have neither fromEnv nor a complete secretRef;"
            " give secretName, accessKeyKey and secretKeyKey there"
        )

    return settings | dict(zip(("secret", "access_key", "secret_key"), names, strict=True))


def _override(overrides: list[Mapping[str, Any]], bucket: str, prefix: str) -> Mapping[str, Any]:
    for item in overrides:
        override = _mapping(item, "overrides")
        if override.get("bucketName") == bucket and prefix.startswith(
            str(override.get("keyPrefix") or "")
        ):
            return override
    return {}


def _providers(text: str) -> Mapping[str, Any]:
    try:
        return _mapping(yaml.safe_load(text), "providers")
    except yaml.YAMLError:
        raise ConfigError(f"providers of {CONFIG_MAP} is no YAML; {_CORRECT}") from None


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    """The value, empty where nothing was given.

    Raises ConfigError where it is something else than a mapping.
    """
    if value is not None and not isinstance(value, dict):
        raise ConfigError(f"{name} in the providers of {CONFIG_MAP} is no mapping; {_CORRECT}")
    return value or {}
