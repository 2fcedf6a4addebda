"""How does a run on this machine use an object store as a run on a cluster would?

SeaweedFS serves S3 on loopback for the length of the run; what it holds stays below the run's folder.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.shared.store import BundleRegistry, Store
from components.shared.store.embedded import embedded_store

BUCKET = "streetvision"


@dataclass(frozen=True)
class LocalStore:
    """The store of one run; its steps find it through their environment."""

    store: Store

    def mirror(self, source: str) -> str:
        """Make s3://streetvision/data equal to a local folder or file; returns where it can be read."""
        root = Path(source)
        files = [root] if root.is_file() else [file for file in sorted(root.rglob("*")) if file.is_file()]
        names = {f"data/{file.relative_to(root.parent if root.is_file() else root).as_posix()}": file for file in files}
        held = {item.key: item.etag for item in self.store.list(BUCKET, "data/")}
        for key, file in names.items():
            if held.get(key) != hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest():
                self.store.put(BUCKET, key, file)
        for key in held.keys() - names.keys():
            self.store.delete(BUCKET, key)
        return f"s3://{BUCKET}/data" + (f"/{root.name}" if root.is_file() else "")

    def register(self, bundle: Path) -> str:
        """Put a bundle into the registry; returns where it is."""
        digest = BundleRegistry(self.store, BUCKET, "registry").put_bundle(bundle)
        return f"s3://{BUCKET}/registry/bundles/{digest}"


@contextlib.contextmanager
def local_store(directory: Path) -> Iterator[LocalStore]:
    """Run the store with its data below `directory`; the environment leads there until the end."""
    with embedded_store(directory, buckets=(BUCKET,)) as settings:
        variables = settings.to_environment()
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
