"""Options of ingest: sources, classes, and limits of what is accepted."""

from dataclasses import dataclass

from components.ingest_dataset.sources.config import (
    EXCLUDE,
    SourceConfig,
    all_sources,
    label_map_problems,
)
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
    class_names: tuple[str, ...] = option(
        ("None", "Roadwork"), "Classes in the order of the model's outputs."
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
        """Classes must be distinct, sources complete, label maps must map to classes."""
        problems = []
        if len(self.class_names) < 2 or len(set(self.class_names)) != len(self.class_names):
            problems.append(
                f"class_names={list(self.class_names)} must be at least 2 distinct names"
            )

        if EXCLUDE in self.class_names:
            problems.append(
                f"class_names={list(self.class_names)}: {EXCLUDE!r} means to leave a row out"
            )

        try:
            sources = self.sources()
        except ConfigError as error:
            return [*problems, str(error)]

        return problems + [
            line for source in sources for line in label_map_problems(source, self.class_names)
        ]

    def sources(self) -> list[SourceConfig]:
        """All sources, the first one first."""
        return all_sources(self, self.extra_sources)
