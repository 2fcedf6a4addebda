"""Phase 6: what is deployed? One directory with the model, exactly one policy, and everything to check them by."""

import json
import shutil
from pathlib import Path
from typing import Any

from components.export_bundle.config import ExportConfig
from components.export_bundle.model_card import natix_card, readme
from components.shared.artifacts import Manifest, sha256_file, verify_dir, write_json, writing
from components.shared.bundle import KIND
from components.shared.errors import ArtifactError
from components.shared.evaluation.policy import read_policy
from components.shared.step import InputDir, OutputDir, main


def run(
    config: ExportConfig,
    *,
    checkpoint: InputDir,
    policy: InputDir,
    evaluation: InputDir,
    dataset: InputDir,
    bundle: OutputDir,
) -> None:
    """Fold the policy into the model and write the bundle. Raises ArtifactError for none or several policies."""
    rule, policy_manifest = read_policy(policy)
    inputs = {
        "checkpoint": verify_dir(checkpoint, "Checkpoint"),
        "policy": policy_manifest,
        "evaluation": verify_dir(evaluation, "Evaluation"),
        "dataset": verify_dir(dataset, "ImageDataset"),
    }
    report = json.loads((evaluation / "eval_report.json").read_text(encoding="utf-8"))
    if report["policy"] != rule.to_json():
        raise ArtifactError("evaluation was made with another policy; evaluate the one that is bundled")
    from components.export_bundle.fold import write_model

    with writing(bundle, kind=KIND, step="export_bundle", config=config, inputs=inputs) as out:
        stock = write_model(checkpoint, rule, out / "model")
        shutil.copyfile(policy / "policy.json", out / "policy.json")
        (out / "README.md").write_text(readme(config, report, inputs["dataset"].summary, stock), encoding="utf-8")
        write_json(out / "model_card.json", natix_card(config))
        write_json(out / "bundle.json", _document(config, out, inputs, stock))


def _document(config: ExportConfig, out: Path, inputs: dict[str, Manifest], stock: str | None) -> dict[str, Any]:
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {
        "name": config.model_name,
        "version": config.model_version,
        "model": "model",
        "policy": "policy.json",
        "stock_pipeline": stock is None,
        "stock_pipeline_reason": stock or "",
        "files": {file.relative_to(out).as_posix(): sha256_file(file) for file in files},
        "lineage": {
            name: {"content_digest": m.content_digest, "config_digest": m.config_digest, "code_version": m.code_version}
            for name, m in inputs.items()
        },
    }


if __name__ == "__main__":
    main(run, ExportConfig)
