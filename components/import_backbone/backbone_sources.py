"""Sources of a backbone: a local folder, an object store, or the Hugging Face Hub.

Only safetensors are accepted: other formats of weights are pickles, which run code when read.
"""

import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError, DataError, TransientError, one_line
from components.shared.contracts.hub_ids import hub_id
from components.shared.model_files.folder import (
    BESIDE,
    CONFIG,
    DOCUMENTS,
    INDEX,
    screen,
    screen_documents,
)
from components.shared.model_files.reading import real_file

Fetch = Callable[[str, Path], object]


def copy_backbone(source: str, out: Path) -> str:
    """Copy configuration, weights, preprocessing and licence of a backbone to `out`.

    Args:
        source: Local folder, `s3://bucket/prefix`, or Hub id, with hf:// or without.
        out: Folder for the files.

    Returns:
        The exact source; for the Hub with the commit.

    Raises:
        DataError: The source does not exist or has no backbone in safetensors.
        TransientError: The Hub or the store does not deliver.
    """
    if source.startswith("s3://"):
        return _from_store(source, out)
    repository = hub_id(source)
    if repository is not None:
        return _from_hub(repository, out)
    if not Path(source).is_dir():
        raise DataError(f"backbone={source!r} is a file; give the folder of a Hugging Face model")
    return _from_folder(source, Path(source), out)


def _from_folder(source: str, folder: Path, out: Path) -> str:
    where = f"backbone={source!r}"
    # Before the copy, so that messages are about the files that the user has.
    for name in screen(folder, where, others=None, error=DataError).names:
        shutil.copyfile(real_file(folder, name, where, error=DataError), out / name)
    return source


def _from_store(source: str, out: Path) -> str:
    from components.shared.storage import Store, split_uri

    bucket, prefix = split_uri(source)
    store, prefix = Store.from_environment(), prefix.rstrip("/") + "/" if prefix else ""
    etags = {item.key.removeprefix(prefix): item.etag for item in store.list(bucket, prefix)}
    if not etags:
        raise DataError(f"backbone={source!r} holds no objects; is the prefix right?")

    def fetch(name: str, path: Path) -> None:
        store.get(bucket, prefix + name, path, etag=etags[name])

    _copy(source, etags, fetch, out)

    return source


def _from_hub(source: str, out: Path) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.errors import RepositoryNotFoundError as NotFoundError

    try:
        folder = Path(
            snapshot_download(source, allow_patterns=[CONFIG, "model*.safetensors", INDEX, *BESIDE])
        )
    except HFValidationError as error:
        raise ConfigError(f"backbone={source!r} is no hub id like owner/name") from error
    except GatedRepoError as error:
        raise DataError(
            f"backbone={source!r} is gated: accept its licence on the hub and give a token in"
            f" {Variable.HUB_TOKEN}"
        ) from error
    except NotFoundError as error:
        raise DataError(
            f"backbone={source!r} is not a folder here, and the hub has no such model"
        ) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise TransientError(
            f"backbone={source!r}: the hub does not deliver: {one_line(error)[:300]}"
        ) from error

    _from_folder(source, folder, out)

    # The folder of a snapshot is named after its commit.
    return f"{source}@{folder.name}"


def _copy(source: str, names: Collection[str], fetch: Fetch, out: Path) -> None:
    """Fetch the files of a backbone, and screen them.

    Args:
        source: Where they come from, for messages.
        names: Names of all files there.
        fetch: Copies the file of a name to a path.
        out: Folder for the files.
    """
    where = f"backbone={source!r}"
    for name in DOCUMENTS:
        if name in names:
            fetch(name, out / name)

    # Before the weights, which take the time.
    model = screen_documents(out, names, where, error=DataError)
    for name in model.names:
        if name not in DOCUMENTS:
            fetch(name, out / name)

    screen(out, where, error=DataError)
