"""Screening of a model folder: which files are read, and whether they may be.

Weights are safetensors in the folder itself, whole or in shards that an index names. Nothing else
is opened by a library: pickles, adapters and Python files are not in the list of allowed names.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from components.shared.contracts.errors import ArtifactError, PermanentError
from components.shared.contracts.listing import first_of, printable, shown
from components.shared.model_files.image_statistics import (
    PREPROCESSOR,
    PROCESSOR,
    image_statistics,
)
from components.shared.model_files.model_config import checked_config, refuse_keys
from components.shared.model_files.reading import read_document, real_file, refuse_large
from components.shared.model_files.tensors import StoredTensor, check_tensors

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
README = "README.md"
# Preprocessing, and the licence, which also applies to models that are derived from the weights.
BESIDE = (PREPROCESSOR, PROCESSOR, "LICENSE", "LICENSE.md", "LICENSE.txt", README)
# Files that are read without the weights.
DOCUMENTS = (CONFIG, INDEX, PREPROCESSOR, PROCESSOR)
_MOST_SHARDS = 1000
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")


@dataclass(frozen=True)
class ModelFiles:
    """A folder that passed.

    Attributes:
        config: Fields of config.json that a library may see.
        names: Names of the files of the model.
        tensors: All tensors of the weights, by name.
    """

    config: dict[str, Any]
    names: tuple[str, ...]
    tensors: Mapping[str, StoredTensor]


class Documents(NamedTuple):
    """What a model's documents say.

    Attributes:
        config: Fields of config.json that a library may see.
        names: Names of the files of the model.
        weights: Names of the files of its weights.
        shards: Tensor names to file names; empty if the weights are one file.
    """

    config: dict[str, Any]
    names: tuple[str, ...]
    weights: tuple[str, ...]
    shards: Mapping[str, str]


def screen(
    folder: Path,
    where: str,
    *,
    others: Collection[str] | None = (),
    error: type[PermanentError] = ArtifactError,
) -> ModelFiles:
    """Check every file of a model; nothing of the folder is executed or unpickled.

    Args:
        folder: Folder in Hugging Face's layout.
        where: Which model it is, for messages.
        others: Names of entries that may be there besides the model's files; None if any may,
            because the folder itself is not handed to a library.
        error: What to raise.

    Raises:
        PermanentError: of the class `error`, naming the file, the key and the remedy.
    """
    try:
        present = sorted(entry.name for entry in folder.iterdir())
    except OSError as cause:
        raise error(f"{where} is no folder that can be read ({cause.strerror})") from cause

    documents = screen_documents(folder, present, where, error=error)
    if others is not None:
        strangers = sorted(set(present) - set(documents.names) - set(others))
        if strangers:
            raise error(
                f"{where} holds {first_of(map(shown, strangers))}, not a file of a model in"
                " safetensors; remove it"
            )

    files = {name: real_file(folder, name, where, error=error) for name in documents.names}
    for name in set(documents.names) - set(documents.weights):
        refuse_large(files[name].stat().st_size, f"{where}: {name}", error=error)

    stored = {
        name: check_tensors(files[name], f"{where}: {name}", error=error)
        for name in documents.weights
    }
    _check_index(documents.shards, stored, where, error)
    tensors = {name: tensor for found in stored.values() for name, tensor in found.items()}

    n_layers = documents.config.get("num_hidden_layers", 1)
    if n_layers > len(tensors):
        raise error(
            f"{where}: {CONFIG} has num_hidden_layers={n_layers}, but the weights are"
            f" {len(tensors)} tensor(s); the two belong to different models"
        )

    return ModelFiles(documents.config, documents.names, tensors)


def screen_documents(
    folder: Path,
    present: Collection[str],
    where: str,
    *,
    error: type[PermanentError] = ArtifactError,
) -> Documents:
    """Check what can be checked of a model without its weights.

    Args:
        folder: Folder with the files of DOCUMENTS that the model has.
        present: Names of all files of the model.
        where: Which model it is, for messages.
        error: What to raise.

    Raises:
        PermanentError: of the class `error`, as `screen`.
    """
    if CONFIG not in present:
        raise error(f"{where} has no {CONFIG}; it is not a Hugging Face model folder")

    index: dict[str, str] = {}
    if INDEX in present:
        document = read_document(folder, INDEX, where, error=error)
        index = checked_index(document, where, error=error)

    weights = weight_names(present, index, where, error=error)
    config = checked_config(read_document(folder, CONFIG, where, error=error), where, error=error)
    image_statistics(folder, where, error=error)

    beside = [name for name in BESIDE if name in present]
    names = (CONFIG, *([INDEX] if index else []), *weights, *beside)

    return Documents(config, names, tuple(weights), index)


def screen_adapter(
    folder: Path, where: str, *, error: type[PermanentError] = ArtifactError
) -> dict[str, StoredTensor]:
    """Return the tensors of a folder with an adapter of peft, or raise `error` as `screen`."""
    try:
        present = {entry.name for entry in folder.iterdir()}
    except OSError as cause:
        raise error(f"{where} is no folder that can be read ({cause.strerror})") from cause

    if present - {README} != {ADAPTER_CONFIG, ADAPTER_WEIGHTS}:
        raise error(
            f"{where} must hold {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}, holds"
            f" {first_of(map(shown, sorted(present)))}"
        )

    document = read_document(folder, ADAPTER_CONFIG, where, error=error)
    if not isinstance(document, Mapping):
        raise error(f"{where}: {ADAPTER_CONFIG} must be a JSON object, not {shown(document, 60)}")
    refuse_keys(document, f"{where}: {ADAPTER_CONFIG}", error=error)

    weights = real_file(folder, ADAPTER_WEIGHTS, where, error=error)
    return check_tensors(weights, f"{where}: {ADAPTER_WEIGHTS}", error=error)


def weight_names(
    present: Collection[str],
    index: Mapping[str, str],
    where: str,
    *,
    error: type[PermanentError] = ArtifactError,
) -> list[str]:
    """Return the names of the files of weights.

    Args:
        present: Names of all files of the model.
        index: Tensor names to file names, of a model in shards; empty if there is no index.
        where: Which model it is, for messages.
        error: What to raise.

    Raises:
        PermanentError: of the class `error`: a file is missing.
    """
    names = sorted(set(index.values())) or [WEIGHTS]
    missing = sorted(set(names) - set(present))
    if not missing:
        return names

    pickles = sorted(name for name in present if name.endswith(_PICKLES))
    found = (
        f", only {first_of(map(printable, pickles))}, which is never unpickled; convert it with"
        " save_pretrained()"
    )
    raise error(f"{where} has no {first_of(map(printable, missing))}{found if pickles else ''}")


def checked_index(
    document: Any, where: str, *, error: type[PermanentError] = ArtifactError
) -> dict[str, str]:
    """Return which file holds each tensor of a model in shards.

    Raises `error` where the document is no index, or names something else than files beside it.
    """
    place = f"{where}: {INDEX}"
    parts = document if isinstance(document, Mapping) else {}
    found = parts.get("weight_map")
    if (
        not isinstance(parts.get("metadata"), Mapping)
        or not isinstance(found, Mapping)
        or not all(isinstance(name, str) for name in found.values())
    ):
        raise error(
            f"{place} is not an index of weights: it must have metadata, and a weight_map of file"
            " names"
        )

    names = sorted(set(found.values()))
    strange = [name for name in names if not _is_plain(name)]
    if not names or strange or len(names) > _MOST_SHARDS:
        raise error(
            f"{place} must name .safetensors files beside it, not"
            f" {shown(strange[:3] or f'{len(names)} files')}"
        )
    return dict(found)


def _check_index(
    index: Mapping[str, str],
    stored: Mapping[str, Mapping[str, StoredTensor]],
    where: str,
    error: type[PermanentError],
) -> None:
    """Refuse an index that disagrees with its shards."""
    if not index:
        return
    found = {(tensor, name) for name, tensors in stored.items() for tensor in tensors}
    differing = sorted({tensor for tensor, _ in found ^ set(index.items())})
    if differing:
        raise error(
            f"{where}: {INDEX} disagrees with its shards about {len(differing)} tensor(s), first"
            f" {shown(differing[0])}"
        )


def _is_plain(name: str) -> bool:
    return name.endswith(".safetensors") and Path(name).name == name and not name.startswith(".")
