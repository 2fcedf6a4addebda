"""Options of ingest: sources, classes, and limits of what is accepted."""

from dataclasses import dataclass

from components.ingest_dataset.sources.config import (
    EXCLUDE,
    SourceConfig,
    all_sources,
    classes_of_maps,
    label_map_problems,
)
from components.ingest_dataset.sources.records import Part
from components.shared.contracts.config import option
from components.shared.contracts.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class IngestConfig(SourceConfig):
    """Options of ingest: the first source, further sources, limits."""

    extra_sources: str = option(
        "", "JSON list of further sources to fuse with `data`, each with its own label map."
    )
    source_fingerprint: str = option(
        "", "Digest of the source's listing; set by the pipeline for its cache."
    )
    exclude: str = option(
        "",
        "CSV of images to leave out, by the column id of audit_labels' tables; local or s3://.",
    )
    relabel: str = option(
        "",
        "CSV of new labels: columns id, and label (or suggested_label); local or s3://.",
    )
    class_names: tuple[str, ...] | None = option(
        None,
        "Classes in the order of the model's outputs; auto: those of the data, None and Roadwork"
        " where its labels are these or 0 and 1.",
        unset="auto",
    )
    image_size: int = option(224, "Side of the stored square image, pixels.", ge=16, le=2048)
    max_reject_fraction: float = option(
        0.01, "Largest fraction of unusable files before the step fails.", ge=0, le=1
    )
    # The bound is where Pillow itself refuses.
    max_pixels: int = option(
        100_000_000,
        "Images of more pixels are refused as decompression bombs.",
        ge=1,
        le=178_956_970,
    )
    near_duplicate_distance: int = option(
        8,
        "Images whose 64-bit perceptual hashes differ in at most this many bits are grouped.",
        ge=0,
        le=16,
    )

    def check(self) -> list[str]:
        """Classes must be distinct, sources complete, label maps must lead to classes."""
        problems = [] if self.class_names is None else _name_problems(self.class_names)

        try:
            sources = self.sources()
        except ConfigError as error:
            return [*problems, str(error)]

        return problems + label_map_problems(sources, self.class_names)

    @property
    def known_classes(self) -> tuple[str, ...] | None:
        """The classes, where the options alone say them; None where the data do."""
        found = classes_of_maps(self.sources()) if self.class_names is None else self.class_names
        return None if found is None else tuple(found)

    def sources(self) -> list[SourceConfig]:
        """All sources, the first one first."""
        return all_sources(self, self.extra_sources)


@dataclass(frozen=True, kw_only=True)
class PartConfig(IngestConfig):
    """Options of ingest, and which part of the listing is to be checked."""

    part: int = option(1, "Which of `n_parts` parts of the listing is checked.", ge=1)
    n_parts: int = option(1, "Number of parts, each of which another task checks.", ge=1)

    def check(self) -> list[str]:
        """There must be such a part."""
        wrong = self.part > self.n_parts
        problem = f"part={self.part} must be at most n_parts={self.n_parts}"
        return super().check() + ([problem] if wrong else [])

    @property
    def listing_part(self) -> Part:
        """The part of the listing."""
        return Part(self.part, self.n_parts)


def _name_problems(class_names: tuple[str, ...]) -> list[str]:
    """Return what is wrong with given class names, a line each."""
    problems = []
    shown = f"class_names={list(class_names)}"
    if len(class_names) < 2 or len(set(class_names)) != len(class_names):
        problems.append(f"{shown} must be at least 2 distinct names, or auto")
    if EXCLUDE in class_names:
        problems.append(f"{shown}: {EXCLUDE!r} means to leave a row out")
    if any(name != name.strip() or not name for name in class_names):
        problems.append(f"{shown}: a name is empty or has blanks around it")
    return problems
