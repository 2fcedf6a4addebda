"""Sources of a backbone: a local folder, an object store, or the Hugging Face Hub.

Only safetensors are accepted: other formats of weights are pickles, which run code when read.
"""

import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError, DataError, TransientError, one_line

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
# Preprocessing, and the licence, which also applies to models that are derived from the weights.
_BESIDE = (
    "preprocessor_config.json",
    "processor_config.json",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "README.md",
)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")

Fetch = Callable[[str, Path], object]


def copy_backbone(source: str, out: Path) -> str:
    """Copy configuration, weights, preprocessing and licence of a backbone to `out`.

    Args:
        source: Local folder, `s3://bucket/prefix`, or Hub id.
        out: Folder for the files.

    Returns:
        The exact source; for the Hub with the commit.

    Raises:
        ConfigError: `source` is neither a folder, nor s3://, nor a valid Hub id.
        DataError: The source does not exist or has no backbone in safetensors.
        TransientError: The Hub or the store does not deliver.
    """
    if source.startswith("s3://"):
        return _from_store(source, out)
    if Path(source).is_dir():
        return _from_folder(source, Path(source), out)
    if Path(source).is_absolute() or source.startswith("."):
        raise DataError(f"backbone={source!r} does not exist")
    return _from_hub(source, out)


def _from_folder(source: str, folder: Path, out: Path) -> str:
    names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    _copy(source, names, lambda name, path: shutil.copyfile(folder / name, path), out)
    return source


def _from_store(source: str, out: Path) -> str:
    from components.shared.storage import Store, split_uri

    bucket, prefix = split_uri(source)
    store, prefix = Store.from_environment(), prefix.rstrip("/") + "/" if prefix else ""
    names = [item.key.removeprefix(prefix) for item in store.list(bucket, prefix)]
    if not names:
        raise DataError(f"backbone={source!r} holds no objects; is the prefix right?")

    _copy(source, names, lambda name, path: store.get(bucket, prefix + name, path), out)

    return source


def _from_hub(source: str, out: Path) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.errors import RepositoryNotFoundError as NotFoundError

    try:
        folder = Path(
            snapshot_download(
                source, allow_patterns=[CONFIG, "model*.safetensors", INDEX, *_BESIDE]
            )
        )
    except HFValidationError as error:
        raise ConfigError(
            f"backbone={source!r} is neither a folder, nor s3://, nor a hub id like org/name"
        ) from error
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
    """Fetch the files of a backbone.

    Args:
        source: Where they come from, for messages.
        names: Names of all files there.
        fetch: Copies the file of a name to a path.
        out: Folder for the files.
    """
    if CONFIG not in names:
        raise DataError(
            f"backbone={source!r} has no {CONFIG}; it is not a Hugging Face model folder"
        )

    if INDEX in names:
        fetch(INDEX, out / INDEX)
        weights = _shards(source, out / INDEX)
    else:
        weights = [WEIGHTS]

    missing = sorted(set(weights) - set(names))
    if missing:
        pickles = sorted(name for name in names if name.endswith(_PICKLES))
        found = (
            f", only {', '.join(pickles)}, which is never unpickled; convert it with"
            " save_pretrained()"
        )
        raise DataError(
            f"backbone={source!r} has no {', '.join(missing)}{found if pickles else ''}"
        )

    for name in [CONFIG, *weights, *(name for name in _BESIDE if name in names)]:
        fetch(name, out / name)


def _shards(source: str, index: Path) -> list[str]:
    """Return the names of the weight files in an index; refuse paths outside the folder."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        plain = all(Path(name).name == name and name.endswith(".safetensors") for name in names)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"backbone={source!r}: {INDEX} is not an index of weights ({type(error).__name__})"
        ) from error

    if not names or not plain:
        raise DataError(
            f"backbone={source!r}: {INDEX} must name .safetensors files beside it, not {names[:3]}"
        )
    return names
