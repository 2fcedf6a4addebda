"""Entry of a promoted bundle in a Kubeflow Model Registry, by its client.

The client is the optional extra `model-registry`: it brings aiohttp, which nothing else needs.
"""

import importlib.util
import warnings
from typing import Any

from components.shared.contracts.errors import ConfigError
from components.shared.contracts.listing import shown
from components.shared.contracts.redaction import carries_credential, redacted

FORMAT, FORMAT_VERSION = "streetvision-bundle", "1"
_AUTHOR = "streetvision"
_PACKAGE = "model_registry"


def check_address(url: str) -> None:
    """Raise ConfigError where the address is none, or the client is not installed."""
    if carries_credential(url) or not url.startswith(("http://", "https://")):
        raise ConfigError(
            f"model_registry_url={redacted(url)!r} must be http://host:8080 or https://host,"
            " without a credential: the client sends the pod's service account token"
        )
    if importlib.util.find_spec(_PACKAGE) is None:
        raise ConfigError(
            "model_registry_url is set, and the package model-registry is not installed; add the"
            " extra: pip install 'streetvision[model-registry]'"
        )


def enter(
    url: str, *, name: str, version: str, uri: str, author: str, metadata: dict[str, Any]
) -> str:
    """Register a version of a model; one that is registered already is left as it is.

    Args:
        url: of the Model Registry, http://host:8080 or https://host.
        name: of the registered model; it is made where it is missing.
        version: unique name of the version.
        uri: where the bundle is, s3://...
        author: of the version.
        metadata: custom properties of the version: text, numbers and bools.

    Returns:
        Why it failed; empty where it is registered.
    """
    from model_registry import ModelRegistry
    from model_registry.exceptions import StoreError

    with warnings.catch_warnings():
        # A registry without authentication needs no token.
        warnings.simplefilter("ignore")
        try:
            client = ModelRegistry(url, author=_AUTHOR)
            client.register_model(
                name,
                uri,
                version=version,
                model_format_name=FORMAT,
                model_format_version=FORMAT_VERSION,
                author=author or _AUTHOR,
                metadata=metadata,
            )
        except StoreError as error:
            return "" if "already exists" in str(error) else _failure(error)
        # The client's errors have no common class: aiohttp's, its own, pydantic's, asyncio's.
        except Exception as error:
            return _failure(error)
    return ""


def _failure(error: Exception) -> str:
    text = str(error).splitlines()
    return f"Model Registry: {type(error).__name__} {shown(redacted(text[0]) if text else '')}"
