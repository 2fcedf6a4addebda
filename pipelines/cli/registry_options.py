"""How a user names a registry of bundles, and who is told of a promotion."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from pipelines.kubeflow.options import ApiAddress, StoreOptions

if TYPE_CHECKING:
    from components.shared.serving.bundle import Bundle
    from components.shared.storage.registry import BundleRegistry
    from components.shared.storage.registry.announcement import Announcement

BundleArgument = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE",
        help="Folder or s3://bucket/prefix of a bundle, digest in the registry, or champion.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

TrustedKeys = Annotated[
    str,
    typer.Option(
        "--trusted-keys",
        metavar="FILE",
        help="PEM file with public keys and certificates of authorities, one of which must have"
        " signed the bundle.",
        show_default=f"that of {Variable.TRUSTED_KEYS}",
    ),
]


def _option(metavar: str, help_text: str, default: Any) -> Any:
    return field(default=default, metadata={"metavar": metavar, "help": help_text})


@dataclass(frozen=True, kw_only=True)
class RegistryOptions:
    """Where the registry is."""

    TITLE: ClassVar[str] = "Registry"
    NOTE: ClassVar[str] = (
        f"The registry is that of --runs, --bundle-registry, {Variable.BUNDLE_REGISTRY}, or the"
        " cluster's ConfigMap streetvision-store. Its store, and that of an s3:// BUNDLE, is opened"
        " with"
        f" {Variable.S3_ENDPOINT}, {Variable.S3_ACCESS_KEY} and {Variable.S3_SECRET_KEY}, else as"
        " the cluster says; from outside the cluster forward its port and give --store-endpoint."
    )

    bundle_registry: str = _option("URI", "Registry of bundles, s3://bucket/prefix.", "")
    runs: Path | None = _option(
        "FOLDER", "The registry of local runs in FOLDER that had `--store embedded`.", None
    )


@dataclass(frozen=True, kw_only=True)
class AnnounceOptions:
    """Who is told of a promotion."""

    TITLE: ClassVar[str] = "Announcement"

    on_promotion: str = _option(
        "URL",
        f"Address that the record is posted to, signed with {Variable.WEBHOOK_SECRET}.",
        "",
    )
    model_registry_url: str = _option(
        "URL", "Kubeflow Model Registry in which the bundle is entered.", ""
    )

    def checked(self) -> "Announcement":
        """Return what can be sent. Raises ConfigError."""
        from components.shared.storage.registry.announcement import Announcement

        return Announcement.checked(self.on_promotion, self.model_registry_url)


@contextlib.contextmanager
def opened(
    where: RegistryOptions, api: ApiAddress, store: StoreOptions
) -> Iterator["BundleRegistry"]:
    """Open the registry that the options name; the embedded store runs until the end.

    Raises:
        ConfigError: no registry is named, or two are.
        TransientError: the store cannot be reached.
    """
    if where.runs is None:
        yield _remote(where.bundle_registry, api, store)
        return
    if where.bundle_registry:
        raise ConfigError("give --bundle-registry or --runs, not both")

    from components.shared.storage.registry import open_registry
    from pipelines.local.store import REGISTRY, local_store

    folder = where.runs / "store"
    if not folder.is_dir():
        raise ConfigError(
            f"{where.runs} has no embedded store; make one: run --store embedded --output"
            f" {where.runs}"
        )
    with local_store(folder):
        yield open_registry(REGISTRY)


@contextlib.contextmanager
def verified_bundle(
    bundle: str,
    where: RegistryOptions,
    api: ApiAddress,
    store: StoreOptions,
    trusted_keys: str,
) -> Iterator["Bundle"]:
    """Yield the bundle, on this machine until the end; one line on stderr says if it is unsigned.

    Args:
        bundle: As `bundle_location`, and the next three too.
        where: The registry.
        api: The cluster that may name it.
        store: How its store, or that of an address, is reached.
        trusted_keys: The option's file of keys, which count until the end; empty: those of the
            environment, if any.

    Raises:
        ConfigError: As `bundle_location`, or the file of keys has none.
        DataError: The registry has no champion yet.
        ArtifactError: The bundle is damaged, or nobody trusted has signed it.
    """
    from components.shared.serving.chosen_bundle import chosen_bundle
    from components.shared.serving.signature import trusting

    with (
        trusting(trusted_keys),
        bundle_location(bundle, where, api, store) as location,
        tempfile.TemporaryDirectory(prefix="streetvision-bundle-") as folder,
    ):
        yield chosen_bundle(location, "", Path(folder))


@contextlib.contextmanager
def bundle_location(
    bundle: str, where: RegistryOptions, api: ApiAddress, store: StoreOptions
) -> Iterator[str]:
    """Yield the bundle as a step takes it: what a step would not find is downloaded before.

    Args:
        bundle: A folder, s3://bucket/prefix, the first digits of a digest, or "champion".
        where: The registry.
        api: The cluster that may name it.
        store: How its store, or that of an address, is reached.

    Raises:
        ConfigError: It is no such place, the registry has no such bundle, or the store is not
            described.
        DataError: The registry has no champion yet.
    """
    is_address = bundle.startswith("s3://")
    if Path(bundle).is_dir() or (is_address and _is_of_environment(store)):
        yield bundle
        return

    with tempfile.TemporaryDirectory(prefix="streetvision-bundle-") as folder:
        path = Path(folder) / "bundle"
        if is_address:
            _download(bundle, path, api, store)
        else:
            from components.shared.serving.chosen_bundle import digest_of

            with opened(where, api, store) as registry:
                registry.get_bundle(digest_of(bundle, registry), path)
        yield str(path)


def _download(address: str, path: Path, api: ApiAddress, store: StoreOptions) -> None:
    """Download a bundle from a store that the environment does not describe."""
    from components.shared.contracts.artifact_kinds import Kind
    from components.shared.storage import split_uri
    from components.shared.storage.artifacts import download_artifact
    from pipelines.upload_data.location import find_store

    bucket, prefix = split_uri(address)
    found = find_store(api, store).store
    download_artifact(found, bucket, prefix.rstrip("/"), path, kind=Kind.BUNDLE)


def _is_of_environment(store: StoreOptions) -> bool:
    """Whether the environment alone says where the store is and how it is opened."""
    from pipelines.kubeflow.run_store import has_credentials

    return has_credentials(os.environ) and not store.store_endpoint


def _remote(given: str, api: ApiAddress, store: StoreOptions) -> "BundleRegistry":
    """Return a registry in a store that runs elsewhere."""
    from components.shared.storage import split_uri
    from components.shared.storage.registry import BundleRegistry, open_registry
    from pipelines.upload_data.location import find_store

    uri = given or os.environ.get(Variable.BUNDLE_REGISTRY, "")
    if uri and _is_of_environment(store):
        return open_registry(uri)

    bucket, prefix = split_uri(uri or _of_cluster(api))
    return BundleRegistry(find_store(api, store).store, bucket, prefix)


def _of_cluster(api: ApiAddress) -> str:
    """Return the address in the cluster's ConfigMap, which the steps read too."""
    from pipelines.upload_data.location import registry_of_cluster

    uri = registry_of_cluster(api)
    if not uri:
        raise ConfigError(
            "no registry of bundles is named; give --bundle-registry s3://bucket/prefix or --runs"
            f" FOLDER, or set {Variable.BUNDLE_REGISTRY}"
        )
    return uri
