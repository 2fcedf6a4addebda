"""Checks of the locations that a run reads: pods can read them, and they hold something."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from components.configure.resolve import resolve
from components.evaluate.config import EvaluateConfig
from components.ingest_dataset.config import IngestConfig
from components.shared.contracts.errors import ConfigError, DataError, one_line
from components.shared.contracts.hub_ids import hub_id
from components.shared.storage import Store, split_uri
from components.shared.storage.errors import StoreRefusedError, StoreUnavailableError
from pipelines.parameters import Variant
from pipelines.preflight.findings import Preflight

_UPLOAD = "python -m pipelines upload-data"
_MODEL_CONFIG = "config.json"


@dataclass(frozen=True)
class Place:
    """Where a run reads from. field: the run's parameter that says so."""

    field: str
    uri: str

    @property
    def is_stored(self) -> bool:
        """Whether it is in the object store."""
        return self.uri.startswith("s3://")

    def __str__(self) -> str:
        return f"{self.field}={self.uri!r}"


def check_places(values: Mapping[str, Any], variant: Variant) -> Preflight:
    """Judge the places in a run's parameters by their form; nothing is asked of anybody.

    Raises ConfigError.
    """
    found = Preflight()
    for place in places(values, variant):
        if place.is_stored:
            found.refusals += _malformed(place)
        elif place.field == "backbone" and _in_hub(place.uri):
            found.remarks.append(
                f"{place} is taken from the Hugging Face Hub, which the pods must reach; a gated"
                " one needs the Secret streetvision-hub"
            )
        else:
            found.refusals.append(_unreadable(place))

    return found


def _in_hub(uri: str) -> bool:
    try:
        return hub_id(uri) is not None
    except DataError:
        return False


def check_objects(store: Store, wanted: Sequence[Place]) -> Preflight:
    """Look whether something is at each stored place.

    At most one page of a listing is read for each.
    """
    found = Preflight()
    for place in wanted:
        bucket, prefix = split_uri(place.uri)
        try:
            if not _exists(store, place.field, bucket, prefix.rstrip("/")):
                found.refusals.append(_absent(store, place))
        except StoreRefusedError as error:
            if "NoSuchBucket" in str(error):
                found.refusals.append(
                    f"{place}: {store.endpoint} has no bucket {bucket!r}; correct the address"
                )
            else:
                found.remarks.append(f"{place} was not looked for: {one_line(error)}")
        except StoreUnavailableError as error:
            found.remarks.append(f"{place} was not looked for: {one_line(error)}")
            break

    return found


def places(values: Mapping[str, Any], variant: Variant) -> Iterator[Place]:
    """Yield the places that are set: the data, further sources, tables, the backbone.

    None of a pipeline without `configure`. Raises ConfigError.
    """
    if not variant.is_configured:
        return

    phases = resolve(variant.with_form(values))
    ingest = cast(IngestConfig, phases["ingest_dataset"])
    for number, source in enumerate(ingest.sources()):
        if source.data:
            yield Place(f"extra_sources[{number - 1}].data" if number else "data", source.data)
    evaluation = cast(EvaluateConfig, phases["evaluate"])
    files = {
        "exclude": ingest.exclude,
        "relabel": ingest.relabel,
        "stage2_logits": evaluation.stage2_logits,
    }
    for option, file in files.items():
        if file:
            yield Place(option, file)
    if values.get("backbone"):
        yield Place("backbone", values["backbone"])


def _malformed(place: Place) -> list[str]:
    try:
        split_uri(place.uri)
    except ConfigError as error:
        return [f"{place.field}: {one_line(error)}"]
    return []


def _unreadable(place: Place) -> str:
    """Why pods cannot read the place, and what to do."""
    scheme, separator, rest = place.uri.partition("://")
    if separator and scheme == "minio":
        return f"{place}: the steps know s3:// addresses; write s3://{rest}"
    if separator:
        return (
            f"{place}: the steps read s3:// only; copy it there: {_UPLOAD} FOLDER"
            " s3://bucket/prefix"
        )

    or_hub = "; a hub id is hf://owner/name" if place.field == "backbone" else ""
    return (
        f"{place}: local folders are not available inside pods; copy it to the object store: "
        f"{_UPLOAD} {place.uri} s3://bucket/prefix{or_hub}"
    )


def _exists(store: Store, field: str, bucket: str, prefix: str) -> bool:
    folder = f"{prefix}/" if prefix else ""
    if field == "backbone":
        return store.first(bucket, folder + _MODEL_CONFIG) is not None
    if store.first(bucket, folder) is not None:
        return True
    single = store.first(bucket, prefix)  # a Parquet file
    return single is not None and single.key == prefix


def _absent(store: Store, place: Place) -> str:
    what = f"no {_MODEL_CONFIG} is there" if place.field == "backbone" else "nothing is there"
    return (
        f"{place}: {what} ({store.endpoint}); correct the address, or copy it: {_UPLOAD} FOLDER"
        f" {place.uri}"
    )
