"""Inputs of the export made without training: a random classifier, a policy, an evaluation and a
few images.
"""

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    PretrainedConfig,
    ViTConfig,
)

from components.export_bundle.config import ExportConfig
from components.export_bundle.onnx_export import write_onnx
from components.export_bundle.step import run
from components.shared.calibration.calibrator import class_log_odds
from components.shared.contracts.artifacts import (
    beside_manifest,
    sha256_file,
    verify_dir,
    write_json,
    writing,
)
from components.shared.contracts.config import Config
from components.shared.contracts.outcomes import Outcomes
from components.shared.contracts.tables import write_table
from components.shared.data.dataset import (
    Dataset,
    Sample,
    write_header,
    write_samples,
    write_shards,
)
from components.shared.data.val_test_images import MOST_THUMBNAILS, write_val_test_images
from components.shared.models.classifier import Classifier, Head, normalise
from components.shared.models.gate import Gate, GateHead
from components.shared.policies.logit_affine import logit_affine_of
from components.shared.policies.policy import Policy, ScrcPolicy, softmax_policy
from components.shared.policies.policy_artifact import read_policy
from components.shared.serving.bundle import open_bundle
from components.shared.vision.classifier_spec import ClassifierSpec
from tests.once import made_once

SIZE = 56
_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIZE}
CONFIGS: dict[str, PretrainedConfig] = {
    "dinov2": Dinov2Config(patch_size=14, mlp_ratio=2, **_SMALL),
    "dinov2_with_registers": Dinov2WithRegistersConfig(
        patch_size=14, mlp_ratio=2, num_register_tokens=2, **_SMALL
    ),
    "vit": ViTConfig(patch_size=14, intermediate_size=64, **_SMALL),
}


@dataclass(frozen=True)
class Inputs:
    """Directories of the four input artifacts."""

    root: Path

    def export(self, bundle: Path, **fields: Any) -> Path:
        """Run the step."""
        paths = {name: self.root / name for name in ("checkpoint", "evaluation", "val_test_images")}
        paths[f"{fields.get('policy', 'softmax')}_policy"] = self.root / "policy"
        paths.setdefault("softmax_policy", self.root / "policy")
        paths |= {name: fields.pop(name) for name in ("dataset", "splits") if name in fields}
        with contextlib.redirect_stdout(io.StringIO()):
            run(ExportConfig(**{"formats": ("transformers",)} | fields), **paths, bundle=bundle)
        return bundle

    @property
    def policy(self) -> Policy:
        return read_policy(self.root / "policy")[0]

    def margin(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """(B,) calibrated log-odds of the policy, of (B, S, S, 3) uint8."""
        return self.policy.margin(self.logits(pixels))

    def logits(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """(B, C) of the checkpoint."""
        classifier = Classifier.load(self.root / "checkpoint")
        with torch.inference_mode():
            return classifier(normalise(torch.from_numpy(pixels), classifier.spec)).double().numpy()


def resigned(bundle: Path, path: Path, change: Callable[[Path], object]) -> Path:
    """Write the bundle after `change(directory)`, with new sums in bundle.json and the manifest.

    As somebody does who changes a bundle and wants it to be accepted.
    """
    with writing(path, kind="Bundle", step="export_bundle", config=Config()) as out:
        shutil.copytree(bundle, out, dirs_exist_ok=True)
        for name in ("manifest.json", *beside_manifest("Bundle")):
            (out / name).unlink(missing_ok=True)
        change(out)

        document = json.loads((out / "bundle.json").read_text())
        if isinstance(document, dict) and isinstance(document.get("files"), dict):
            document["files"] = {
                file.relative_to(out).as_posix(): sha256_file(file)
                for file in out.rglob("*")
                if file.is_file() and file.name != "bundle.json"
            }
            write_json(out / "bundle.json", document)
    return path


def edit_json(file: Path, **values: Any) -> None:
    """Set entries of a JSON object on disk."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def edit_weights(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of a safetensors file; `change` may return other ones."""
    tensors = load_file(file)
    changed = change(tensors)
    save_file(tensors if changed is None else changed, file, metadata={"format": "pt"})


def noise(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """(count, SIZE, SIZE, 3) uint8: smooth noise, of which no two images have the same mean
    colour.
    """
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((SIZE, SIZE))) for image in coarse])


def make_inputs(
    root: Path,
    *,
    family: str = "dinov2",
    class_names: tuple[str, ...] = ("None", "Roadwork"),
    positive_class: str = "Roadwork",
    threshold_margin: float = 0.0,
    policy: Policy | None = None,
) -> Inputs:
    """Write the four artifacts; the head's bias is such that all outcomes are decided.

    `policy` takes the place of a softmax policy of the other arguments; a gate's checkpoint gets a
    random gate head.
    """
    inputs = Inputs(root)
    bundled = policy or softmax_policy(
        Outcomes.of(class_names, "binary", positive_class), threshold_margin
    )
    class_names = bundled.class_names
    write_dataset(root / "dataset", class_names)
    write_test_images(root / "val_test_images", root / "dataset")
    dataset = {"dataset": verify_dir(root / "dataset", "ImageDataset")}
    with writing(root / "policy", kind="Policy", step="fit_threshold", config=Config()) as out:
        write_json(out / "policy.json", bundled.to_json())
    classifier = random_classifier(family, class_names)
    for _ in range(2):  # once as drawn, then centred on the threshold
        with writing(
            root / "checkpoint", kind="Checkpoint", step="train", config=Config(), inputs=dataset
        ) as out:
            classifier.save(out)
            if bundled.kind == "gate":
                torch.manual_seed(1)
                Gate(GateHead(classifier.head.linear.in_features)).save(out)
        _centre(classifier, bundled)
    write_evaluation(root / "evaluation", bundled)
    return inputs


def _centre(classifier: Classifier, policy: Policy) -> None:
    """Shift the head's bias: logits have the median 0, and margins that of the threshold."""
    bias = classifier.head.linear.bias
    pixels = normalise(torch.from_numpy(noise(32)), classifier.spec)
    with torch.no_grad():
        if len(bias) > 2:
            bias -= classifier(pixels).median(dim=0).values
        if policy.outcomes.positive is None:
            return
        margin = class_log_odds(classifier(pixels).double().numpy(), policy.outcomes.positive)
        bias[policy.outcomes.positive] += _raw_threshold(policy) - float(np.median(margin))


def _raw_threshold(policy: Policy) -> float:
    """Return the log-odds before calibration at which the decision changes."""
    affine = logit_affine_of(policy)
    index = policy.outcomes.positive_index
    other, positive = affine.offset[index - 1], affine.offset[index]
    return float((other - positive) / affine.scale[index])


def random_classifier(family: str, class_names: tuple[str, ...]) -> Classifier:
    """Two blocks of the family, weights from seed 0, a head that tells noise images apart by
    several log-odds.
    """
    torch.manual_seed(0)
    extra = {"add_pooling_layer": False} if family == "vit" else {}
    backbone = AutoModel.from_config(CONFIGS[family], **extra)
    head = Head(2 * backbone.config.hidden_size, len(class_names))
    torch.nn.init.normal_(head.linear.weight, std=3.0)
    spec = ClassifierSpec(class_names, SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), family)
    return Classifier(backbone, head, spec).eval()


def write_dataset(
    path: Path,
    class_names: tuple[str, ...],
    n_images: int = 20,
    size: int | None = None,
    attributes: Sequence[dict[str, str]] = (),
) -> None:
    """An ImageDataset of noise, of which nothing is measured."""
    size = size or SIZE
    samples = [
        Sample(
            f"{i:016x}",
            i % len(class_names),
            f"g{i}",
            "source",
            f"{i}.jpg",
            f"{i:064x}",
            attributes[i] if attributes else {},
        )
        for i in range(n_images)
    ]
    counts = {
        "n_samples": n_images,
        "n_groups": n_images,
        "n_per_class": dict.fromkeys(class_names, n_images // len(class_names)),
    }
    summary = counts | {"n_rejected": 3, "n_exact_duplicates": 1}
    images = [np.asarray(Image.fromarray(image).resize((size, size))) for image in noise(n_images)]
    with writing(
        path, kind="ImageDataset", step="ingest_dataset", config=Config(), summary=summary
    ) as out:
        write_header(out, class_names, size)
        write_samples(out, samples)
        write_shards(out, images, n_images, size)


def write_test_images(
    path: Path,
    dataset: Path,
    logits: npt.NDArray[np.float32] | None = None,
    most: int = MOST_THUMBNAILS,
) -> None:
    """What predict_logits keeps of VAL_TEST, here of all images of the dataset."""
    data = Dataset.open(dataset)
    ids = [sample.sample_id for sample in data.samples]
    if logits is None:
        logits = np.zeros((len(ids), len(data.class_names)), dtype=np.float32)
    with writing(
        path,
        kind="ValTestImages",
        step="predict_logits",
        config=Config(),
        inputs={"dataset": data.manifest},
        split="VAL_TEST",
    ) as out:
        write_val_test_images(out, data, ids, logits, most)


def write_evaluation(
    path: Path, policy: Policy, guarantees: list[dict[str, Any]] | None = None
) -> None:
    """An Evaluation of `policy`, one metric without an interval, with these guarantees."""
    metrics = {
        "accuracy": {"value": 0.8125, "interval_95": [0.75, 0.875]},
        "coverage_at_precision": {"value": None, "interval_95": None},
    }
    report = {
        "split": "VAL_TEST",
        "n_samples": 16,
        "n_per_outcome": dict.fromkeys(policy.outcomes.names, 8),
        "n_groups": 4,
        "policy": policy.to_json(),
        "policies": {policy.kind: {"guarantees": guarantees or []}},
    }
    with writing(path, kind="Evaluation", step="evaluate", config=Config()) as out:
        write_json(out / "eval_report.json", report | {"metrics": metrics})


def write_images(folder: Path) -> list[Path]:
    """Every kind of image a deployment meets, as files that a stock pipeline can open too."""
    folder.mkdir()
    base = Image.fromarray(noise(1, seed=5)[0]).resize((90, 60))
    turned = base.getexif()
    turned[0x0112] = 6  # orientation: rotate by 90 degrees to view
    base.save(folder / "rgb.jpg")
    base.save(folder / "turned.jpg", exif=turned)
    base.convert("L").save(folder / "grey.png")
    base.convert("LA").save(folder / "grey_alpha.png")
    base.convert("RGBA").save(folder / "rgba.png")
    base.convert("CMYK").save(folder / "cmyk.jpg")
    base.convert("P").save(folder / "palette.gif")
    base.convert("1").save(folder / "bilevel.tif")
    base.resize((1, 1)).save(folder / "one.png")
    base.resize((300, 7)).save(folder / "wide.webp")
    base.resize((4032, 3024)).save(folder / "large.jpg", quality=75)
    return sorted(folder.iterdir())


def with_onnx(bundle: Path, path: Path, policy: Policy | None = None) -> Path:
    """Write the bundle again with onnx/, as an export with that format does, without its gate."""
    opened = open_bundle(bundle)
    return resigned(bundle, path, lambda out: write_onnx(opened, out / "onnx", policy))


def deferring_bundle(root: Path) -> Path:
    """Write `plain/` below `root`: a bundle whose policy answers nothing."""
    policy = ScrcPolicy(
        kind="scrc",
        outcomes=Outcomes.of(("None", "Roadwork")),
        threshold=0.5,
        threshold_margin=0.0,
        risk="error",
        alpha=0.1,
        delta=0.1,
        coverage_lower_bound=0.3,
        answer_from=(1e6, 1e6),
    )
    return make_inputs(root, policy=policy).export(root / "plain", policy="scrc")


def onnx_bundle(factory: pytest.TempPathFactory) -> Path:
    """Return a tiny bundle with onnx/: None and Roadwork, of noise about half each.

    Its images are SIZE pixels wide. It is made once in a session; no test writes into it.
    """

    def make(root: Path) -> None:
        plain = make_inputs(root / "inputs", threshold_margin=0.4).export(root / "plain")
        with_onnx(plain, root / "bundle")

    return made_once(factory, "onnx-bundle", make) / "bundle"


def write_splits(path: Path, dataset: Path) -> Path:
    """Every fifth image in TRAIN and in VAL_TEST, the others in VAL_CALIB and VAL_SELECT."""
    data = Dataset.open(dataset)
    names = ("TRAIN", "VAL_CALIB", "VAL_SELECT", "VAL_TEST", "VAL_CALIB")
    rows = [(sample.sample_id, names[i % 5]) for i, sample in enumerate(data.samples)]
    inputs = {"dataset": data.manifest}
    with writing(path, kind="Splits", step="split_dataset", config=Config(), inputs=inputs) as out:
        write_table(out / "splits.csv", ("sample_id", "split"), rows)
    return path
