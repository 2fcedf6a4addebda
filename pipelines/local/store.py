"""An object store on this machine, for runs that read and register as on a cluster.

SeaweedFS serves S3 on loopback for the length of the run; what it holds stays below the run's
folder.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.shared.contracts.environment import Variable
from components.shared.storage import BundleRegistry, Store
from pipelines.local.embedded_store import embedded_store
from pipelines.upload_data.selection import files_below
from pipelines.upload_data.transfer import transfer

BUCKET = "streetvision"


@dataclass(frozen=True)
class LocalStore:
    """The store of one run; its steps find it through their environment."""

    store: Store

    def mirror(self, source: str) -> str:
        """Make s3://streetvision/data equal to a local folder or file.

        Returns where it can be read.

        Raises DataError for what cannot become an object, and the store's errors.
        """
        root = Path(source)
        transfer(self.store, files_below(root), BUCKET, "data", delete=True)
        return f"s3://{BUCKET}/data" + (f"/{root.name}" if root.is_file() else "")

    def register(self, bundle: Path) -> str:
        """Put a bundle into the registry; returns where it is."""
        digest = BundleRegistry(self.store, BUCKET, "registry").put_bundle(bundle)
        return f"s3://{BUCKET}/registry/bundles/{digest}"


@contextlib.contextmanager
def local_store(directory: Path) -> Iterator[LocalStore]:
    """Run the store with its data below `directory`; the environment leads there until the end."""
    with embedded_store(directory, buckets=(BUCKET,)) as settings:
        lineages = {Variable.LINEAGES: f"s3://{BUCKET}/lineages"}
        variables = settings.to_environment() | lineages
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
