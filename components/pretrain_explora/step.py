"""Extended pre-training of a backbone on the images of TRAIN."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from components.pretrain_explora.config import PretrainExploraConfig
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir, write_json, writing
from components.shared.contracts.documents import read_object
from components.shared.contracts.errors import (
    PERMANENT_EXIT_CODE,
    ConfigError,
    DataError,
    LeakageViolationError,
    PermanentError,
    TransientError,
)
from components.shared.contracts.step import InputDir, OutputDir, OutputFile, main
from components.shared.data.train_images import TrainImages
from components.shared.data.train_labels import read_train_labels
from components.shared.model_files.folder import CONFIG
from components.shared.model_files.model_config import checked_config
from components.shared.model_files.reading import read_document
from components.shared.training.session.outputs import write_measurements
from components.shared.training.session.training_session import TrainingSession

STEP = "pretrain_explora"
_TOLERANCE = 1e-4  # of tokens; storing fp32 weights explains 1e-6
_PROJECT_ROOT = Path(__file__).resolve().parents[2]
_NO_ROPE = ("dinov2", "dinov2_with_registers", "vit")


def run(
    config: PretrainExploraConfig,
    *,
    train_images: InputDir,
    pretrained: InputDir,
    adapted: OutputDir,
    train_labels: InputDir | None = None,
    measurements: OutputFile | None = None,
) -> dict[str, float]:
    """Train through torchrun, verify the merged backbone from disk, write it; return the metrics.

    If interrupted and started again with the same inputs, the step resumes at its last checkpoint
    and writes the same bytes.

    Args:
        config: The step's configuration.
        train_images: Images of TRAIN.
        pretrained: The backbone to start from.
        adapted: The result.
        train_labels: Labels of the images; required with use_labeled_data=true, refused otherwise.
        measurements: Page (HTML) of what the training took of the machine.

    Returns:
        Metrics of the last epoch, and the number and fraction of trainable parameters.

    Raises:
        LeakageViolationError: Images or labels are not those of TRAIN alone.
        PermanentError: Training collapsed, or the merged backbone differs from the trained one by
            more than 1e-4.
    """
    sources = {"train_images": train_images, "pretrained": pretrained}
    if train_labels is not None:
        sources["train_labels"] = train_labels
    training = TrainingSession(config, step=STEP, inputs=sources, beside=adapted)
    training.raise_recorded_failure()
    images, base = TrainImages.open(train_images), verify_dir(pretrained, Kind.BACKBONE)
    inputs: dict[str, Manifest] = {"train_images": images.manifest, "pretrained": base}
    inputs |= _labels(config, images, train_labels)
    _check(config, images, pretrained)

    with training.run("components.pretrain_explora.train", inputs) as work:
        write_measurements(measurements, work)
        summary = read_object(work / "training.json", dict[str, Any])
        summary["max_difference"] = _verified(pretrained, work)
        with writing(
            adapted, kind=Kind.BACKBONE, step=STEP, config=config, inputs=inputs, summary=summary
        ) as out:
            shutil.copytree(work / "backbone", out, dirs_exist_ok=True)
            write_json(out / "training.json", summary)

        metrics = dict(summary["last_metrics"])
        for name in ("trainable_parameters", "trainable_fraction"):
            metrics[name] = summary[name]

        return {name: float(value) for name, value in metrics.items()}


def _check(config: PretrainExploraConfig, images: TrainImages, pretrained: Path) -> None:
    """Refuse what can be refused before a process is started or a model is loaded."""
    where = f"backbone={str(pretrained)!r}"
    document = checked_config(
        read_document(pretrained, CONFIG, where, error=DataError), where, error=DataError
    )
    if config.explora_objective == "mae" and document["model_type"] not in _NO_ROPE:
        raise ConfigError(
            f"explora_objective='mae' leaves patches out, which a {document['model_type']!r}"
            " backbone's rotary positions do not allow; use dino"
        )

    patch = document.get("patch_size", 1)
    size = min(config.explora_crop_size, images.image_size)
    if size < 2 * patch:
        raise ConfigError(
            f"explora_crop_size or image_size of {size} is less than 2 x 2 patches of {patch}"
            " pixels"
        )


def _labels(
    config: PretrainExploraConfig, images: TrainImages, train_labels: Path | None
) -> dict[str, Manifest]:
    """Return the labels' manifest if labels are used; refuse labels that the options exclude."""
    if train_labels is None:
        if config.use_labeled_data:
            raise ConfigError(
                "use_labeled_data=true needs the input train_labels, which split_dataset writes"
            )
        return {}

    if not config.use_labeled_data:
        raise LeakageViolationError(
            "train_labels are an input of pre-training, and use_labeled_data=false"
        )
    return {"train_labels": read_train_labels(train_labels, images)[0]}


def _verified(pretrained: Path, work: Path) -> dict[str, float]:
    """Return the differences that `verify` finds in a process of its own, all within tolerance."""
    result = work / "verified.json"
    arguments = [pretrained, work / "backbone", work / "probe.safetensors", result]
    command = [
        sys.executable,
        "-m",
        "components.pretrain_explora.verify",
        *(str(path.absolute()) for path in arguments),
    ]

    finished = subprocess.run(
        command, cwd=_PROJECT_ROOT, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        last = " | ".join(finished.stderr.strip().splitlines()[-3:])
        is_permanent = finished.returncode == PERMANENT_EXIT_CODE
        raise (PermanentError if is_permanent else TransientError)(
            f"the merged backbone could not be loaded again: {last}"
        )

    found = read_object(result, dict[str, float])
    for name, difference in found.items():
        if not difference <= _TOLERANCE:
            raise PermanentError(
                f"{name} backbone on disk differs from the trained one by {difference:.3g} (>"
                f" {_TOLERANCE})"
            )

    return found


if __name__ == "__main__":
    main(run, PretrainExploraConfig)
