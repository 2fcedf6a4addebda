"""Artifacts whose sums were recomputed, as somebody does who changes one on purpose."""

import hashlib
import json
from pathlib import Path
from typing import Any

from components.shared.contracts.artifacts import MANIFEST, beside_manifest
from components.shared.contracts.config import canonical_json


def signed(document: dict[str, Any]) -> bytes:
    """The bytes of a manifest with this content and the digest that belongs to it."""
    content = {name: value for name, value in document.items() if name != "manifest_digest"}
    digest = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    return json.dumps({**content, "manifest_digest": digest}).encode()


def resign(directory: Path, **changes: Any) -> None:
    """Give the artifact a manifest that fits its files; `changes` replace fields of it."""
    file = directory / MANIFEST
    document = json.loads(file.read_bytes())
    left_out = (MANIFEST, *beside_manifest(document["kind"]))
    document["files"] = {
        entry.relative_to(directory).as_posix(): {
            "sha256": hashlib.sha256(entry.read_bytes()).hexdigest(),
            "bytes": entry.stat().st_size,
        }
        for entry in sorted(directory.rglob("*"))
        if entry.is_file() and entry.relative_to(directory).as_posix() not in left_out
    }
    file.write_bytes(signed(document | changes))
