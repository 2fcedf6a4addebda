"""Where do the data come from, and what is accepted?"""

from dataclasses import dataclass

from components.shared.config import Config, option


@dataclass(frozen=True, kw_only=True)
class IngestConfig(Config):
    """Parameters of phase 0, ingest."""

    data: str = option("", "Images: folder with a CSV, or Parquet file or folder. Required.")
    extra_sources: str = option("", "JSON list of further sources to fuse with `data`, each with its own label map.")
    source_name: str = option("", "Name of the source in every sample's record; empty: the folder's or file's name.")
    source_fingerprint: str = option("", "Digest of the source's listing; set by the pipeline for its cache.")
    csv: str = option("labels.csv", "Name of the CSV inside the folder.")
    path_column: str = option("path", "Column with the image path, relative to the folder.")
    label_column: str = option("label", "Column with the raw label.")
    group_column: str = option("group", "Column of place, video or drive (nested: video_info.vid_id); empty: none.")
    timestamp_column: str = option("", "Column with the time of the image; empty: none.")
    label_map: dict[str, str] = option(
        {"0": "None", "1": "Roadwork", "-1": "exclude"}, "Raw label -> class name, or 'exclude' to leave the row out."
    )
    class_names: tuple[str, ...] = option(("None", "Roadwork"), "Classes in the order of the model's outputs.")
    image_size: int = option(224, "Side of the stored square image, pixels.", ge=16, le=2048)
    max_reject_share: float = option(0.01, "Largest share of unusable files before the step fails.", ge=0, le=1)
    max_pixels: int = option(100_000_000, "Larger images are refused as decompression bombs.", ge=1)
    near_duplicate_distance: int = option(
        10, "Images whose 64-bit perceptual hashes differ in at most so many bits are grouped.", ge=0, le=16
    )

    def check(self) -> list[str]:
        """Classes must be distinct and the map must lead to them."""
        problems = []
        if len(self.class_names) < 2 or len(set(self.class_names)) != len(self.class_names):
            problems.append(f"class_names={list(self.class_names)} must be at least 2 distinct names")
        unknown = sorted(set(self.label_map.values()) - set(self.class_names) - {"exclude"})
        if unknown:
            problems.append(f"label_map leads to {unknown}, which is neither in class_names nor 'exclude'")
        return problems
