"""Effect of extended pre-training on a frozen probe, on the demo's scenes.

`python -m tests.studies.explora_demo FOLDER`.

The demo's backbone, as it is and after `pretrain_explora` on TRAIN's pixels; on both a logistic
regression on frozen [CLS; mean patch], its strength chosen by cross-validation over groups of
TRAIN. Results on VAL_TEST, whose 16 groups decide little, and on 3,200 scenes of drives that no
split has (another seed of the generator): AUROC and NLL, and paired differences with 95 % intervals
over groups. Further arguments `name=value` are parameters of the phase. Everything is kept in
FOLDER.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from components.import_backbone.config import ImportBackboneConfig
from components.import_backbone.step import run as import_backbone
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest_dataset
from components.pretrain_explora.config import PretrainExploraConfig
from components.pretrain_explora.step import run as pretrain_explora
from components.shared.data.dataset import Dataset
from components.shared.data.splits import read_splits
from components.shared.models.backbone import image_statistics, load_backbone, patch_and_cls
from components.shared.stats.bootstrap import membership, paired_difference
from components.shared.stats.metrics import auroc
from components.split_dataset.config import SplitConfig
from components.split_dataset.step import run as split_dataset
from pipelines.demo.backbone import write_demo_backbone
from pipelines.demo.dataset import write_demo_data

# Chosen by the probe's NLL in cross-validation on TRAIN, among nine. A random backbone has little
# to lose and all its images close together: a large rate, much KoLeo, small heads.
RECIPE: dict[str, Any] = {
    "explora_objective": "dino",
    "epochs": 3,
    "global_batch_size": 32,
    "learning_rate": 3e-3,
    "ema_decay": 0.95,
    "explora_local_crops": 2,
    "explora_prototypes": 128,
    "explora_head_width": 128,
    "explora_ibot_weight": 0.5,
    "explora_koleo_weight": 0.5,
    "n_processes": 1,
}
_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
_REPLICATES = 2000
_N_FRESH = 3200
Floats = npt.NDArray[np.float64]


def main() -> None:
    """Print one line per set of scenes and metric."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="folder of all results")
    parser.add_argument("changes", nargs="*", metavar="name=value", help="options of the phase")
    parsed = parser.parse_args()
    root, changes = parsed.folder, dict(pair.split("=", 1) for pair in parsed.changes)
    config = PretrainExploraConfig.from_mapping(
        RECIPE | {name: yaml.safe_load(v) for name, v in changes.items()}
    )
    prepare(root)
    adapted = root / f"adapted-{config.digest()[:12]}"
    started = time.perf_counter()
    if not adapted.exists():
        pretrain_explora(
            config,
            train_images=root / "train_images",
            pretrained=root / "pretrained",
            adapted=adapted,
        )
    print(f"pre-training: {time.perf_counter() - started:.0f} s, {adapted}")
    splits = read_splits(root / "splits")
    demo, fresh = Dataset.open(root / "dataset"), Dataset.open(root / "fresh")
    fitted = {
        name: probe(path, demo, splits.ids("TRAIN"))
        for name, path in _backbones(root, adapted).items()
    }
    judged = {
        "VAL_TEST": (demo, splits.ids("VAL_TEST")),
        "fresh scenes": (fresh, [s.sample_id for s in fresh.samples]),
    }
    for name, (data, ids) in judged.items():
        _compare(name, {model: score(data, ids) for model, score in fitted.items()}, data, ids)


def prepare(root: Path) -> None:
    """Scenes, splits and the backbone, where they are not there already."""
    write_demo_data(root / "source")
    write_demo_data(root / "source-fresh", n_images=_N_FRESH, seed=2)
    write_demo_backbone(root / "backbone")
    for source, dataset in (("source", "dataset"), ("source-fresh", "fresh")):
        if not (root / dataset).exists():
            ingest_dataset(IngestConfig(data=str(root / source)), dataset=root / dataset)
    if not (root / "train_images").exists():
        paths = {name: root / name for name in ("dataset", "splits", "train_images")}
        split_dataset(SplitConfig(), **paths)
    if not (root / "pretrained").exists():
        import_backbone(
            ImportBackboneConfig(backbone=str(root / "backbone")), pretrained=root / "pretrained"
        )


def probe(backbone: Path, data: Dataset, ids: list[str]) -> Any:
    """The fitted probe, as a function of a data set and sample ids that gives margins (N,)."""
    extract = partial(features, backbone)
    groups = [data.samples[data.index[i]].group for i in ids]
    grid = {"logisticregression__C": list(_STRENGTHS)}
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)),
        grid,
        scoring="neg_log_loss",
        cv=GroupKFold(5),
    )
    search.fit(extract(data, ids), labels(data, ids), groups=groups)
    print(
        f"{backbone.name}: C = {search.best_params_['logisticregression__C']:g}, NLL"
        f" {-search.best_score_:.4f} (TRAIN)"
    )
    return lambda data, ids: search.decision_function(extract(data, ids))


def features(backbone: Path, data: Dataset, ids: list[str]) -> npt.NDArray[np.float32]:
    """(N, 2h) [CLS; mean patch] of undistorted images."""
    model, (mean, std) = load_backbone(str(backbone)).eval(), image_statistics(str(backbone))
    rows = np.array([data.index[i] for i in ids], dtype=np.int64)
    found = []
    with torch.inference_mode():
        for batch in np.array_split(rows, -(-len(rows) // 64)):
            pixels = torch.from_numpy(data.images(batch)).permute(0, 3, 1, 2).float() / 255
            pixels = (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(
                1, 3, 1, 1
            )
            found.append(patch_and_cls(model, pixels).numpy())
    return np.concatenate(found)


def labels(data: Dataset, ids: list[str]) -> npt.NDArray[np.int64]:
    """(N,) class indices."""
    return np.array([data.samples[data.index[i]].label for i in ids], dtype=np.int64)


def _backbones(root: Path, adapted: Path) -> dict[str, Path]:
    return {"plain": root / "pretrained", "adapted": adapted}


def _compare(name: str, margins: dict[str, Floats], data: Dataset, ids: list[str]) -> None:
    truth = labels(data, ids) == 1
    groups = [data.samples[data.index[i]].group for i in ids]
    member = membership(groups, len(groups))
    for metric, function in {"AUROC": auroc, "NLL": _nll}.items():
        plain, adapted = (
            partial(function, truth, margins[model]) for model in ("plain", "adapted")
        )
        found = paired_difference(adapted, plain, member, _REPLICATES, 0)
        low, high = found.interval or (float("nan"), float("nan"))
        print(
            f"{name} ({len(ids)} images, {member.max() + 1} groups) {metric}: plain"
            f" {float(plain(None)):.4f}, adapted {float(adapted(None)):.4f}, difference"
            f" {found.value:+.4f} [{low:+.4f}, {high:+.4f}]"
        )


def _nll(truth: npt.NDArray[np.bool_], margin: Floats, weights: Floats | None = None) -> Floats:
    """Mean logistic loss, of each row of weights (R, N) where there are any."""
    loss = np.logaddexp(0.0, np.where(truth, -margin, margin))
    return np.asarray(loss.mean() if weights is None else weights @ loss / weights.sum(axis=1))


if __name__ == "__main__":
    main()
