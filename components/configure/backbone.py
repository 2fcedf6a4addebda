"""Refusal of a backbone before the data are read: what the import would refuse later.

A folder is screened whole, its weights included. Of a stored model only the documents are read, a
few kilobytes; its weights are judged by the import. The Hub is not asked.
"""

import tempfile
from pathlib import Path

from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import shown
from components.shared.model_files.folder import DOCUMENTS, screen, screen_documents
from components.shared.model_files.reading import refuse_large


def check_backbone(backbone: str) -> None:
    """Raise DataError where the backbone's files are damaged, would run code, or do not fit.

    Args:
        backbone: Folder, s3:// prefix, or id of a Hub repository, which is not looked at.
    """
    where = f"backbone={shown(backbone)}"
    if backbone.startswith("s3://"):
        _check_stored(backbone, where)
    elif Path(backbone).exists():
        screen(Path(backbone), where, others=None, error=DataError)


def _check_stored(backbone: str, where: str) -> None:
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

        screen_documents(Path(folder), found, where, error=DataError)
