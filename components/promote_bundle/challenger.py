"""The challenger: a bundle, its predictions on VAL_TEST, and the split that it was trained by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir
from components.shared.contracts.documents import as_type, read_bytes, read_json
from components.shared.contracts.errors import ArtifactError, ConfigError
from components.shared.contracts.outcomes import Outcomes
from components.shared.data.attributes import recorded_columns, sliceable_columns
from components.shared.data.dataset import Dataset, Sample
from components.shared.data.splits import read_splits
from components.shared.policies.evaluation_report import read_report
from components.shared.policies.logits import read_logits
from components.shared.policies.policy import parse_policy
from components.shared.policies.predictions import Predictions
from components.shared.serving.bundle import DOCUMENT, Bundle, open_bundle
from components.shared.stats.metrics import Floats, Integers
from components.shared.storage.registry import SplitLineage

SPLIT = "VAL_TEST"
_USE_ONE_RUN = "use the artifacts of one run"


@dataclass(frozen=True)
class Images:
    """Images of VAL_TEST that models are compared on.

    Attributes:
        data: the data set.
        positions: (N,) int64 of the images in it.
    """

    data: Dataset
    positions: Integers

    @property
    def samples(self) -> list[Sample]:
        """The N samples."""
        return [self.data.samples[position] for position in self.positions.tolist()]

    @property
    def groups(self) -> tuple[str, ...]:
        """N group names."""
        return tuple(sample.group for sample in self.samples)

    def truth(self, outcomes: Outcomes) -> Integers:
        """Return (N,) int64, number of each image's true outcome."""
        labels = np.array([sample.label for sample in self.samples], dtype=np.int64)
        if outcomes.positive is None:
            return labels
        return np.asarray(labels == outcomes.positive, dtype=np.int64)

    def columns(self) -> dict[str, Sequence[str] | Floats]:
        """Return what is recorded of the images, by the names that a user gives the columns."""
        return sliceable_columns(recorded_columns(self.samples), "the data set")

    def take(self, rows: Integers) -> "Images":
        """Return the images at `rows` (n,)."""
        return Images(self.data, self.positions[rows])


@dataclass(frozen=True)
class Observed:
    """A risk that was observed on VAL_TEST, as eval_report.json has it."""

    value: float | None
    interval_95: tuple[float, float] | None


@dataclass(frozen=True)
class Guarantee:
    """The entries of a guarantee in eval_report.json that are compared with the certificate."""

    alpha: float
    max_group_images: int | None
    observed_risk: Observed
    observed_risk_per_image: Observed

    @property
    def observed(self) -> Observed:
        """The risk of the unit that is certified."""
        per_group = self.max_group_images is None
        return self.observed_risk if per_group else self.observed_risk_per_image


@dataclass(frozen=True)
class Challenger:
    """A verified bundle that wants to become the champion.

    Attributes:
        bundle: the opened bundle.
        digest: its content digest.
        name: in its model card.
        version: in its model card.
        images: all images of VAL_TEST.
        lineage: of the split that it was trained by.
        table: bytes of splits.csv, all samples that its run has seen.
        predictions: on `images`, from saved logits; None: they are still to be computed.
        guarantees: certified and observed risks, of eval_report.json; empty where not given.
        manifests: of the inputs.
    """

    bundle: Bundle
    digest: str
    name: str
    version: str
    images: Images
    lineage: SplitLineage
    table: bytes = field(repr=False)
    predictions: Predictions | None = field(default=None, repr=False)
    guarantees: Sequence[Guarantee] = ()
    manifests: Mapping[str, Manifest] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class _Card:
    """The entries of bundle.json that name the model."""

    name: str
    version: str


@dataclass(frozen=True)
class _SplitDocument:
    """The entries of split.json that name the lineage."""

    lineage: str
    salt: str
    fractions: dict[str, float]


def read_challenger(
    bundle: Path,
    dataset: Path,
    splits: Path,
    *,
    val_test_logits: Path | None = None,
    gate_test_logits: Path | None = None,
    evaluation: Path | None = None,
) -> Challenger:
    """Verify and read a challenger.

    Args:
        bundle: the bundle.
        dataset: the data set that it was made from.
        splits: the splits of the data set.
        val_test_logits: logits of its model; without them the bundle predicts itself.
        gate_test_logits: logits with gate scores, where its policy is a gate.
        evaluation: of its policy.

    Raises:
        LeakageViolationError: logits of another split than VAL_TEST.
        ArtifactError: an artifact is damaged, or they are of different runs.
        ConfigError: the splits are of no lineage.
    """
    opened, data, assignment = open_bundle(bundle), Dataset.open(dataset), read_splits(splits)
    manifests = {
        "bundle": verify_dir(bundle, Kind.BUNDLE),
        "dataset": data.manifest,
        "splits": assignment.manifest,
    }
    if set(assignment.of) != set(data.index):
        raise ArtifactError(f"splits and dataset have different samples: {_USE_ONE_RUN}")

    ids = assignment.ids(SPLIT)
    images = Images(data, np.array([data.index[sample_id] for sample_id in ids], dtype=np.int64))
    predictions = None
    if val_test_logits is not None:
        by_kind = {"val_test_logits": val_test_logits}
        if gate_test_logits is not None:
            by_kind["gate_test_logits"] = gate_test_logits
        predictions = _predictions(opened, ids, by_kind, manifests)

    report: Mapping[str, Any] = {}
    if evaluation is not None:
        report = read_report(evaluation)
        manifests["evaluation"] = verify_dir(evaluation, Kind.EVALUATION)
        if parse_policy(report["policy"], "policy of the evaluation") != opened.policy:
            raise ArtifactError(f"evaluation was made with another policy: {_USE_ONE_RUN}")

    _check_one_run(manifests)
    card = _card(bundle / DOCUMENT)

    return Challenger(
        bundle=opened,
        digest=manifests["bundle"].content_digest,
        name=card.name,
        version=card.version,
        images=images,
        lineage=_lineage(splits / "split.json"),
        table=read_bytes(splits / "splits.csv"),
        predictions=predictions,
        guarantees=guarantees_of(report, opened.policy.kind),
        manifests=manifests,
    )


def _predictions(
    bundle: Bundle,
    ids: Sequence[str],
    paths: Mapping[str, Path],
    manifests: dict[str, Manifest],
) -> Predictions:
    """Return what the bundle's policy decides on saved logits, and add their manifests."""
    found = {}
    for name, path in paths.items():
        found[name], manifests[name] = read_logits(path, SPLIT)
        if list(found[name].sample_ids) != list(ids):
            raise ArtifactError(f"{name} and splits have different images: {_USE_ONE_RUN}")

    used = "gate_test_logits" if bundle.policy.kind == "gate" else "val_test_logits"
    if used not in found:
        raise ArtifactError("the bundle's policy is a gate, but gate_test_logits was not given")

    logits = found[used]
    if logits.class_names != bundle.policy.class_names:
        raise ArtifactError(f"{used} and bundle have different classes: {_USE_ONE_RUN}")
    truth = logits.truth(bundle.policy.outcomes)
    return Predictions.of(bundle.policy, truth, logits.groups, logits.logits, logits.gate)


def _check_one_run(manifests: Mapping[str, Manifest]) -> None:
    """Refuse artifacts of which one was made from another one than is given."""
    differing = sorted(
        f"{name} was made from another {source}"
        for name, manifest in manifests.items()
        for source, digest in manifest.inputs.items()
        if source in manifests and digest != manifests[source].content_digest
    )
    if differing:
        raise ArtifactError(f"{'; '.join(differing)}: {_USE_ONE_RUN}")


def guarantees_of(report: Mapping[str, Any], kind: str) -> list[Guarantee]:
    """Return what a verified report says of the guarantees of a kind of policy."""
    found = report.get("policies", {}).get(kind, {}).get("guarantees", [])
    known = [entry.name for entry in fields(Guarantee)]
    return [
        as_type(
            {name: entry.get(name) for name in known}, Guarantee, "guarantees of the evaluation"
        )
        for entry in (_without_rest(entry) for entry in found)
    ]


def _without_rest(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry with the metrics' value and interval alone."""
    known = [field.name for field in fields(Observed)]
    return {
        name: {key: value.get(key) for key in known} if isinstance(value, dict) else value
        for name, value in entry.items()
    }


def _lineage(file: Path) -> SplitLineage:
    document = read_json(file)
    known = ("lineage", "salt", "fractions")
    entries = document if isinstance(document, dict) else {}
    found = as_type({name: entries.get(name) for name in known}, _SplitDocument, str(file))
    if not found.lineage:
        raise ConfigError(
            "the splits are of no lineage, so that nobody knows whether the champion was trained on"
            " VAL_TEST; set lineage=NAME of split_dataset"
        )
    return SplitLineage(name=found.lineage, salt=found.salt, fractions=found.fractions)


def _card(file: Path) -> _Card:
    document = read_json(file)
    entries = document if isinstance(document, dict) else {}
    known = [field.name for field in fields(_Card)]
    return as_type({name: entries.get(name, "") for name in known}, _Card, str(file))
