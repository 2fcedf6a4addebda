"""Download of a run's artifacts from the object store, verified against their manifests."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from components.shared.contracts.artifacts import MANIFEST, parse_manifest
from components.shared.contracts.errors import ArtifactError
from components.shared.storage import Store
from components.shared.storage.artifacts import download_artifact
from components.shared.storage.errors import ObjectNotFoundError
from pipelines.kubeflow.run_store import split_root


def download_run(
    store: Store, root: str, pipeline: str, run_id: str, output: Path
) -> Iterator[tuple[Path, bool]]:
    """Copy the artifacts of a run to `output`.

    KFP's launcher writes them below `root`/`pipeline`/`run_id`/.

    Yields each artifact's path and whether it was verified against its manifest; files that belong
    to no artifact of ours (reports, KFP's own) are copied as they are. Raises ObjectNotFoundError
    where nothing is there, ArtifactError where an artifact differs from its manifest.
    """
    bucket, prefix = split_root(root)
    folder = "/".join(part for part in (prefix.strip("/"), pipeline, run_id) if part)
    keys = [item.key for item in store.list(bucket, folder + "/")]
    if not keys:
        raise ObjectNotFoundError(
            f"{store.endpoint}: nothing below s3://{bucket}/{folder}/; is --root KFP's pipeline"
            " root, and the id right?"
        )

    artifacts = [key.removesuffix("/" + MANIFEST) for key in keys if key.endswith("/" + MANIFEST)]
    for artifact in artifacts:
        path = _below(output, artifact.removeprefix(folder + "/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        where = f"s3://{bucket}/{artifact}/{MANIFEST}"
        kind = parse_manifest(store.read(bucket, f"{artifact}/{MANIFEST}"), where).kind
        download_artifact(store, bucket, artifact, path, kind=kind)
        yield path, True

    for key in keys:
        if not any(key.startswith(artifact + "/") for artifact in artifacts):
            path = _below(output, key.removeprefix(folder + "/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.read(bucket, key))
            yield path, False


def _below(folder: Path, name: str) -> Path:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise ArtifactError(f"object name {name!r} leaves the run's folder")
    return folder / pure
