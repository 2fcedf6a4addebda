"""Cache of local runs: which outputs a step had for its image, command, inputs and parameters.

An entry that is not exactly as it was written is a miss, and so is one whose artifact is gone.
What the artifacts contain is checked where they are used: every step verifies what it reads, and a
run what it ends with. `drop` makes the step of a damaged artifact run again.

Own code around kfp's cache, which ends with a traceback on a document of another form.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.shared.contracts.artifacts import read_manifest, verify_dir
from components.shared.contracts.config import digest
from components.shared.contracts.documents import read_object
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ArtifactError, one_line
from pipelines import kfp_private

Outputs = dict[str, Any]


def cache_folder(output: Path) -> Path:
    """Where the cache of runs below `output` is."""
    return output.resolve() / ".cache"


@dataclass(frozen=True)
class _Entry:
    """The document of an entry: a step's outputs as kfp writes them, and a digest of these."""

    outputs: dict[str, Any]
    digest: str


class Cache(kfp_private.LocalCache):
    """kfp.local's cache, with its keys, and with entries that are checked."""

    @contextlib.contextmanager
    def used_by_kfp(self) -> Iterator[None]:
        """Make kfp.local use this cache inside the context."""
        module = kfp_private.local_cache
        before = module.get_local_cache
        module.get_local_cache = lambda: self
        try:
            yield
        finally:
            module.get_local_cache = before

    def compute_key(self, *, env_vars: Mapping[str, str] | None = None, **parts: Any) -> str:
        """Return kfp's key, whatever the commit that the bundle's provenance names.

        A commit that leaves a step's image as it is runs nothing again, as on Kubeflow, whose keys
        have no variables. A bundle names the commit that it was made by.
        """
        kept = {k: v for k, v in (env_vars or {}).items() if k != Variable.GIT_COMMIT}
        return str(super().compute_key(env_vars=kept, **parts))

    def get(self, key: str) -> Outputs | None:
        """Return the outputs of the key, None where there is no valid entry."""
        outputs = _recorded(Path(self.cache_root, f"{key}.json"))
        if outputs is None:
            return None
        try:
            return dict(self._deserialize_outputs(outputs))
        except kfp_private.ArtifactMissingError:
            return None

    def drop(self, folder: Path) -> bool:
        """Remove the entries with an output in the folder of a step; return whether there were any.

        The step then runs again.
        """
        found = [
            file
            for file in Path(self.cache_root).glob("*.json")
            if folder in map(_folder_of, (_recorded(file) or {}).values())
        ]
        for file in found:
            file.unlink(missing_ok=True)
        return bool(found)

    @staticmethod
    def _serialize_outputs(outputs: Outputs) -> Outputs:
        written = kfp_private.LocalCache._serialize_outputs(outputs)
        return {"outputs": written, "digest": digest(written)}


def damage(artifact: Path) -> str:
    """Return how an artifact differs from its manifest; "" where it does not."""
    try:
        manifest = read_manifest(artifact)
        verify_dir(artifact, manifest.kind, split=manifest.split)
    except ArtifactError as error:
        return one_line(error)
    return ""


def _recorded(file: Path) -> Outputs | None:
    """Return the outputs in an entry's file, None for any other content."""
    try:
        entry = read_object(file, _Entry)
    except ArtifactError:
        return None
    return entry.outputs if entry.digest == digest(entry.outputs) else None


def _folder_of(output: Any) -> Path | None:
    """Return the folder of an artifact among the outputs; None for a parameter."""
    uri = output.get("uri") if isinstance(output, dict) else None
    return Path(uri).parent if isinstance(uri, str) else None
