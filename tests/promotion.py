"""Runs that end in a bundle, without training: random classifiers on the same images of noise.

The labels are what one of the classifiers says, with errors, so that it is better than the others.
"""

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModel

from components.export_bundle.config import ExportConfig
from components.export_bundle.step import run as export_bundle
from components.promote_bundle.challenger import Challenger, read_challenger
from components.shared.contracts.artifacts import read_manifest, verify_dir, write_json, writing
from components.shared.contracts.config import Config
from components.shared.contracts.outcomes import Outcomes
from components.shared.contracts.tables import write_table
from components.shared.data.dataset import Sample, write_header, write_samples, write_shards
from components.shared.models.classifier import Classifier, Head, normalise
from components.shared.policies.logits import Logits, write_logits
from components.shared.policies.policy import Policy, softmax_policy
from components.shared.vision.classifier_spec import ClassifierSpec
from tests.bundles import CONFIGS, SIZE, noise, write_evaluation, write_test_images

CLASS_NAMES = ("None", "Roadwork")
N_IMAGES = 120  # of VAL_TEST: 60 groups of two
FRACTIONS = {"TRAIN": 0.7, "VAL_SELECT": 0.1, "VAL_CALIB": 0.1, "VAL_TEST": 0.1}
_OTHER_SPLITS = ("TRAIN", "VAL_SELECT", "VAL_CALIB")
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Run:
    """The artifacts of one run, below `root`."""

    root: Path

    @cached_property
    def digest(self) -> str:
        return read_manifest(self.root / "bundle").content_digest

    @property
    def paths(self) -> dict[str, Path]:
        """What the step takes."""
        names = ("bundle", "val_test_logits", "evaluation", "dataset", "splits")
        return {name: self.root / name for name in names}

    def challenger(self, *, with_logits: bool = True) -> Challenger:
        paths: dict[str, Any] = dict(self.paths)
        if not with_logits:
            del paths["val_test_logits"]
        bundle, dataset, splits = (paths.pop(name) for name in ("bundle", "dataset", "splits"))
        return read_challenger(bundle, dataset, splits, **paths)


def classifier(seed: int) -> Classifier:
    """Two blocks with weights from seed 0, and a head from another."""
    torch.manual_seed(0)
    backbone = AutoModel.from_config(CONFIGS["dinov2"])
    torch.manual_seed(seed)
    head = Head(2 * backbone.config.hidden_size, len(CLASS_NAMES))
    torch.nn.init.normal_(head.linear.weight, std=3.0)
    return Classifier(
        backbone, head, ClassifierSpec(CLASS_NAMES, SIZE, _MEAN, _STD, "dinov2")
    ).eval()


def logits_of(model: Classifier, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(N, 2) float32, shifted so that half of the margins are positive."""
    with torch.inference_mode():
        found = model(normalise(torch.from_numpy(pixels), model.spec)).numpy()
    return np.asarray(found, dtype=np.float32)


def centred(seed: int, pixels: npt.NDArray[np.uint8]) -> Classifier:
    """The classifier of a seed, whose bias lets it decide for both classes."""
    model = classifier(seed)
    found = logits_of(model, pixels)
    with torch.no_grad():
        model.head.linear.bias[1] -= float(np.median(found[:, 1] - found[:, 0]))
    return model


def labels_of(seed: int, pixels: npt.NDArray[np.uint8], n_wrong: int) -> npt.NDArray[np.int64]:
    """What the classifier of a seed says of the images, but for `n_wrong` of them."""
    found = logits_of(centred(seed, pixels), pixels)
    labels = (found[:, 1] > found[:, 0]).astype(np.int64)
    wrong = np.random.default_rng(0).permutation(len(labels))[:n_wrong]
    labels[wrong] = 1 - labels[wrong]
    return labels


def make_run(
    root: Path,
    seed: int,
    *,
    right: int = 1,
    n_wrong: int = 6,
    policy: Policy | None = None,
    lineage: str = "roads",
    n_images: int = N_IMAGES,
    splits_of_groups: Mapping[str, str] | None = None,
    guarantees: list[dict[str, Any]] | None = None,
) -> Run:
    """Write the artifacts of a run whose model is the classifier of `seed`.

    Labels are those of the classifier `right`. `splits_of_groups`: other splits of some groups.
    """
    run = Run(root)
    pixels = noise(n_images + 6)
    labels = labels_of(right, pixels, n_wrong)
    moved = splits_of_groups or {}
    samples = [
        Sample(
            f"{i:016x}",
            int(labels[i]),
            f"g{i // 2}",
            "source",
            f"{i}.jpg",
            f"{i:064x}",
            {"light": "night" if (i // 2) % 3 == 0 else "day"},
        )
        for i in range(len(pixels))
    ]
    split_of = {
        sample.sample_id: moved.get(
            sample.group, "VAL_TEST" if i < n_images else _OTHER_SPLITS[i % 3]
        )
        for i, sample in enumerate(samples)
    }

    summary = {"n_samples": len(samples), "n_groups": len(samples) // 2, "n_per_class": {}}
    with writing(
        root / "dataset", kind="ImageDataset", step="ingest", config=Config(), summary=summary
    ) as out:
        write_header(out, CLASS_NAMES, SIZE)
        write_samples(out, samples)
        write_shards(out, list(pixels), len(pixels), SIZE)

    dataset = {"dataset": verify_dir(root / "dataset", "ImageDataset")}
    with writing(
        root / "splits", kind="Splits", step="split_dataset", config=Config(), inputs=dataset
    ) as out:
        rows = [[sample.sample_id, split_of[sample.sample_id], sample.group] for sample in samples]
        write_table(out / "splits.csv", ["sample_id", "split", "group"], rows)
        write_json(out / "split.json", {"lineage": lineage, "salt": "s", "fractions": FRACTIONS})

    model = centred(seed, pixels)
    tested = [i for i, sample in enumerate(samples) if split_of[sample.sample_id] == "VAL_TEST"]
    _write_logits(run, [samples[i] for i in tested], logits_of(model, pixels[tested]), dataset)
    bundled = policy or softmax_policy(Outcomes.of(CLASS_NAMES, "binary", "Roadwork"), 0.0)
    _write_bundle(run, model, bundled, dataset, guarantees)
    return run


def _write_logits(
    run: Run, samples: list[Sample], logits: npt.NDArray[np.float32], inputs: Mapping[str, Any]
) -> None:
    with writing(
        run.root / "val_test_logits",
        kind="ValTestLogits",
        step="predict_logits",
        config=Config(),
        inputs=inputs,
        split="VAL_TEST",
    ) as out:
        write_logits(
            out,
            Logits(
                split="VAL_TEST",
                class_names=CLASS_NAMES,
                sample_ids=tuple(sample.sample_id for sample in samples),
                labels=np.array([sample.label for sample in samples], dtype=np.int64),
                logits=logits,
                groups=tuple(sample.group for sample in samples),
                sources=tuple(sample.source for sample in samples),
                paths=tuple(sample.path for sample in samples),
            ),
        )


def _write_bundle(
    run: Run,
    model: Classifier,
    policy: Policy,
    inputs: Mapping[str, Any],
    guarantees: list[dict[str, Any]] | None,
) -> None:
    root = run.root
    with writing(root / "policy", kind="Policy", step="fit_threshold", config=Config()) as out:
        write_json(out / "policy.json", policy.to_json())
    with writing(
        root / "checkpoint", kind="Checkpoint", step="train", config=Config(), inputs=inputs
    ) as out:
        model.save(out)
    write_test_images(root / "val_test_images", root / "dataset")
    write_evaluation(root / "evaluation", policy, guarantees)
    paths = {name: root / name for name in ("checkpoint", "evaluation", "val_test_images")}
    paths[f"{policy.kind}_policy"] = root / "policy"
    paths.setdefault("softmax_policy", root / "policy")
    with contextlib.redirect_stdout(io.StringIO()):
        config = ExportConfig(policy=policy.kind, formats=("transformers",))
        export_bundle(config, **paths, bundle=root / "bundle")
