"""The bundle that new images are compared with: a folder, an address, or one of the registry."""

import re
from pathlib import Path

from components.detect_drift.config import CHAMPION, DetectDriftConfig
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.errors import ConfigError, DataError
from components.shared.contracts.listing import shown
from components.shared.serving.bundle import Bundle, open_bundle
from components.shared.storage import Store, split_uri
from components.shared.storage.artifacts import download_artifact
from components.shared.storage.registry import open_registry

_DIGEST = re.compile(r"[0-9a-f]{6,64}")


def fetch_bundle(config: DetectDriftConfig, folder: Path) -> Bundle:
    """Return the bundle of `config.reference`, downloaded below `folder` where it is stored.

    Raises:
        ConfigError: the reference is no such place, or the registry has no such bundle.
        DataError: the registry has no champion yet.
        ArtifactError: the bundle is damaged.
    """
    given, path = config.reference, folder / "bundle"
    if given.startswith("s3://"):
        bucket, prefix = split_uri(given)
        download_artifact(
            Store.from_environment(), bucket, prefix.rstrip("/"), path, kind=Kind.BUNDLE
        )
        return open_bundle(path)

    if given != CHAMPION and not _DIGEST.fullmatch(given):
        if not Path(given).is_dir():
            raise ConfigError(
                f"reference={shown(given)} is no folder; give the folder of a bundle,"
                f" s3://bucket/prefix of one, digits of a digest in the registry, or {CHAMPION}"
            )
        return open_bundle(Path(given))

    registry = open_registry(config.bundle_registry)
    if given == CHAMPION:
        champion = registry.champion()
        if champion is None:
            raise DataError(
                f"{registry.uri} has no champion yet; promote a bundle, or give one as reference"
            )
        digest = champion.digest
    else:
        digest = registry.resolve(given)

    registry.get_bundle(digest, path)
    return open_bundle(path, digest)
