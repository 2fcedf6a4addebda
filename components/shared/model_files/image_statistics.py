"""Mean and standard deviation per channel that a model folder records for its images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from components.shared.contracts.documents import as_type
from components.shared.contracts.errors import ArtifactError, PermanentError
from components.shared.contracts.listing import shown
from components.shared.model_files.model_config import refuse_keys
from components.shared.model_files.reading import read_document

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"

Mean = Annotated[float, Field(ge=-1e6, le=1e6)]
# Division by less would leave the range of float32.
Deviation = Annotated[float, Field(ge=1e-6, le=1e6)]

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HINTS: dict[str, Any] = {
    "image_mean": tuple[Mean, Mean, Mean],
    "image_std": tuple[Deviation, Deviation, Deviation],
}


def image_statistics(
    folder: Path, where: str, *, error: type[PermanentError] = ArtifactError
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per RGB channel of a model's images in [0, 1].

    Those of ImageNet where the folder records none. As in transformers, an image processor in
    processor_config.json comes before preprocessor_config.json.

    Args:
        folder: The model's folder.
        where: Which model it is, for messages.
        error: What to raise.

    Raises:
        PermanentError: of the class `error`: a file that is no JSON object, names code to run, or
            has statistics that are not three numbers, or a standard deviation below 1e-6.
    """
    recorded, place = _recorded(folder, where, error)
    found: list[tuple[float, ...]] = []

    for name, default in (("image_mean", _IMAGENET_MEAN), ("image_std", _IMAGENET_STD)):
        value = recorded.get(name)
        if value is None:
            found.append(default)
            continue
        as_type(value, _HINTS[name], f"{place}: {name}={shown(value, 60)}", error=error)
        found.append(tuple(value))

    return found[0], found[1]


def _recorded(
    folder: Path, where: str, error: type[PermanentError]
) -> tuple[Mapping[str, Any], str]:
    """Return the configuration of the image processor, and its place for messages."""
    for name in (PROCESSOR, PREPROCESSOR):
        if not (folder / name).exists() and not (folder / name).is_symlink():
            continue

        place = f"{where}: {name}"
        document = read_document(folder, name, where, error=error)
        if name == PROCESSOR and isinstance(document, Mapping):
            refuse_keys(document, place, error=error)
            document = document.get("image_processor", {})
            if document == {}:
                continue

        if not isinstance(document, Mapping):
            raise error(f"{place} must be a JSON object, not {shown(document, 60)}")
        refuse_keys(document, place, error=error)
        return document, place

    return {}, where
