"""Everything about a classifier except its weights, and its document."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from components.shared.contracts.documents import as_type, read_json
from components.shared.contracts.errors import ArtifactError, PermanentError
from components.shared.contracts.listing import shown
from components.shared.model_files.image_statistics import Deviation, Mean
from components.shared.vision.view_spec import ViewSpec

CLASSIFIER = "classifier.json"
MOST_PIXELS = 2048  # the largest side that ingest stores


@dataclass(frozen=True)
class ClassifierSpec:
    """Everything about a classifier except its weights.

    Attributes:
        class_names: Names of the C classes, in the order of the logits.
        image_size: Side S of the images in pixels, before they are cut into views.
        image_mean: Mean per RGB channel of values in [0, 1].
        image_std: Standard deviation per RGB channel.
        backbone_type: transformers' `model_type`.
        views: How an image is cut; None if the classifier sees the full image only.
    """

    class_names: Annotated[tuple[str, ...], Field(min_length=2)]
    image_size: Annotated[int, Field(ge=1, le=MOST_PIXELS)]
    image_mean: Annotated[tuple[Mean, ...], Field(min_length=3, max_length=3)]
    image_std: Annotated[tuple[Deviation, ...], Field(min_length=3, max_length=3)]
    backbone_type: str
    views: ViewSpec | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the document of classifier.json; it has no key "views" without views."""
        document = dataclasses.asdict(self)
        if self.views is None:
            del document["views"]
        return document

    @classmethod
    def from_json(
        cls,
        document: Any,
        where: str = "classifier",
        *,
        error: type[PermanentError] = ArtifactError,
    ) -> "ClassifierSpec":
        """Return the specification whose `to_json` is `document`.

        Args:
            document: JSON value.
            where: The file, for messages.
            error: What to raise.

        Raises:
            PermanentError: of the class `error`: a field is missing, unknown, of another type or
                outside its range.
        """
        if not isinstance(document, Mapping):
            raise error(f"{where}: must be a JSON object, not {shown(document, 60)}")
        as_type(dict(document), cls, where, error=error)

        # The values as they stand: a checked copy would turn integers into floats.
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in document.items()
        }
        views = values.pop("views", None)
        return cls(**values, views=None if views is None else ViewSpec(**views))


def read_spec(directory: Path) -> ClassifierSpec:
    """Return the specification of a classifier's directory; raises ArtifactError."""
    file = directory / CLASSIFIER
    return ClassifierSpec.from_json(read_json(file), str(file))
