"""The bundle that an option names: a folder, an address, a digest in the registry, or champion."""

import re
from pathlib import Path

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.errors import ConfigError, DataError
from components.shared.contracts.listing import shown
from components.shared.serving.bundle import Bundle, open_bundle
from components.shared.storage import Store, split_uri
from components.shared.storage.artifacts import download_artifact
from components.shared.storage.registry import BundleRegistry, open_registry

CHAMPION = "champion"
_DIGEST = re.compile(r"[0-9a-f]{6,64}")


def chosen_bundle(given: str, registry: str, folder: Path, option: str = "bundle") -> Bundle:
    """Return the bundle, downloaded below `folder` where it is stored.

    Where nobody has checked who made it, one line on stderr says so.

    Args:
        given: A folder, s3://bucket/prefix, the first digits of a digest, or "champion".
        registry: s3://bucket/prefix of the registry; empty: that of the environment.
        folder: Where to download it.
        option: What messages call it.

    Raises:
        ConfigError: It is no such place, or the registry has no such bundle.
        DataError: The registry has no champion yet.
        ArtifactError: The bundle is damaged.
    """
    bundle = _opened(given, registry, folder / "bundle", option)
    bundle.warn_unchecked(given)
    return bundle


def _opened(given: str, registry: str, path: Path, option: str) -> Bundle:
    """Open the bundle of a folder, or download it to `path`."""
    if given.startswith("s3://"):
        bucket, prefix = split_uri(given)
        store = Store.from_environment()
        download_artifact(store, bucket, prefix.rstrip("/"), path, kind=Kind.BUNDLE)
        return open_bundle(path)

    if Path(given).is_dir():
        return open_bundle(Path(given))

    _refuse_other(given, option)
    bundles = open_registry(registry)
    digest = digest_of(given, bundles, option)
    bundles.get_bundle(digest, path)
    return open_bundle(path, digest)


def digest_of(given: str, registry: BundleRegistry, option: str = "bundle") -> str:
    """Return the digest of the bundle that the first digits of one name, or "champion".

    Raises:
        ConfigError: It is neither, or the registry has no such bundle.
        DataError: The registry has no champion yet.
    """
    _refuse_other(given, option)
    if given != CHAMPION:
        return registry.resolve(given)

    champion = registry.champion()
    if champion is None:
        raise DataError(
            f"{registry.uri} has no champion yet; promote a bundle, or give one as {option}"
        )
    return champion.digest


def _refuse_other(given: str, option: str) -> None:
    """Raise ConfigError for what is no name of a bundle in the registry."""
    if given != CHAMPION and not _DIGEST.fullmatch(given):
        raise ConfigError(
            f"{option}={shown(given)} is no folder; give the folder of a bundle,"
            f" s3://bucket/prefix of one, digits of a digest in the registry, or {CHAMPION}"
        )
