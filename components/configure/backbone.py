"""Refusal of a backbone before the data are read: what the import would refuse later.

A folder is screened whole, its weights included. Of a stored model only the documents are read, a
few kilobytes; its weights are judged by the import. The Hub is not asked.
"""

import tempfile
from pathlib import Path
from typing import Any

from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import shown
from components.shared.model_files.folder import DOCUMENTS, screen, screen_documents
from components.shared.model_files.reading import refuse_large


def check_backbone(backbone: str) -> int | None:
    """Return the side of the backbone's patches in pixels; None where its documents do not say.

    Args:
        backbone: Folder, s3:// prefix, or id of a Hub repository, which is not looked at.

    Raises:
        DataError: The backbone's files are damaged, would run code, or do not fit.
    """
    where = f"backbone={shown(backbone)}"
    if backbone.startswith("s3://"):
        return _check_stored(backbone, where).get("patch_size")
    if Path(backbone).exists():
        found = screen(Path(backbone), where, others=None, error=DataError)
        return found.config.get("patch_size")
    return None


def _check_stored(backbone: str, where: str) -> dict[str, Any]:
    """Return the fields of the stored model's config.json that a library may see."""
    from components.shared.storage import Store, split_uri

    bucket, prefix = split_uri(backbone)
    store, prefix = Store.from_environment(), prefix.rstrip("/") + "/" if prefix else ""
    found = {item.key.removeprefix(prefix): item for item in store.list(bucket, prefix)}

    with tempfile.TemporaryDirectory(prefix="streetvision-backbone-") as folder:
        for name in DOCUMENTS:
            if name not in found:
                continue
            refuse_large(found[name].size, f"{where}: {name}", error=DataError)
            store.get(bucket, found[name].key, Path(folder, name))

        return screen_documents(Path(folder), found, where, error=DataError).config
