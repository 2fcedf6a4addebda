"""An object store on this machine, for runs that read and register as on a cluster.

SeaweedFS serves S3 on loopback for the length of the run; what it holds stays below the run's
folder.
"""

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from components.shared.contracts.environment import Variable
from components.shared.contracts.listing import first_of
from components.shared.storage import Store, split_uri
from components.shared.storage.registry import BundleRegistry
from pipelines.local.embedded_store import embedded_store
from pipelines.upload_data.selection import LocalFile, files_below, links_out
from pipelines.upload_data.transfer import holds, transfer

BUCKET = "streetvision"
REGISTRY = f"s3://{BUCKET}/registry"


@dataclass(frozen=True)
class LocalStore:
    """The store of one run; its steps find it through their environment."""

    store: Store

    def mirror(self, source: str) -> str:
        """Make s3://streetvision/data equal to a local folder or file.

        Returns where it can be read. Links out of the folder are left out: as where the folder is
        read directly, an image that is one has no bytes.

        Raises DataError for what cannot become an object, and the store's errors.
        """
        root, files = Path(source), files_below(Path(source))
        outside = links_out(root, files)
        if outside:
            named = first_of([file.name for file in outside])
            print(f"links out of {source}, not followed: {named}", flush=True)

        transfer(self.store, _without(files, outside), BUCKET, "data", delete=True)
        return self.address(source)

    def address(self, source: str) -> str:
        """Return where a mirrored folder or file can be read."""
        root = Path(source)
        return f"s3://{BUCKET}/data" + (f"/{root.name}" if root.is_file() else "")

    def mirrors(self, source: str) -> bool:
        """Return whether `mirror` would neither send nor remove anything; errors as there."""
        files = files_below(Path(source))
        inside = _without(files, links_out(Path(source), files))
        return holds(self.store, inside, BUCKET, "data")

    def register(self, bundle: Path) -> str:
        """Put a bundle into the registry; returns where it is."""
        registry = BundleRegistry(self.store, *split_uri(REGISTRY))
        return registry.bundle_uri(registry.put_bundle(bundle))


def _without(files: Iterable[LocalFile], outside: Collection[LocalFile]) -> list[LocalFile]:
    return [file for file in files if file not in outside]


@contextlib.contextmanager
def local_store(directory: Path) -> Iterator[LocalStore]:
    """Run the store with its data below `directory`; the environment leads there until the end."""
    with embedded_store(directory, buckets=(BUCKET,)) as settings:
        places = {
            Variable.LINEAGES: f"s3://{BUCKET}/lineages",
            Variable.BUNDLE_REGISTRY: REGISTRY,
        }
        variables = settings.to_environment() | places
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)

        try:
            yield LocalStore(Store(settings))
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
