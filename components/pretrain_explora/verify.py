r"""Verification, in a process of its own, that the merged backbone on disk is the trained one.

python -m components.pretrain_explora.verify \
    <source backbone> <merged backbone> <probe.safetensors> <verified.json>
"""

import argparse
from pathlib import Path

from peft import PeftModel
from safetensors.torch import load_file

from components.shared.contracts.artifacts import write_json
from components.shared.models.backbone import exact_tokens, load_backbone


def differences(source: Path, merged: Path, probe: Path) -> dict[str, float]:
    """Largest absolute difference of tokens on the probe's images: of the merged backbone, and of
    the source with the stored adapter, both of fp32 weights, to what the trained one said."""
    tensors = load_file(probe)
    models = {
        "merged": load_backbone(str(merged)),
        "adapter": PeftModel.from_pretrained(load_backbone(str(source)), merged / "adapter"),
    }
    return {
        name: float((exact_tokens(model.eval(), tensors["pixels"]) - tensors["tokens"]).abs().max())
        for name, model in models.items()
    }


def main() -> None:
    """Write the differences as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    for name in ("source", "merged", "probe", "result"):
        parser.add_argument(name, type=Path)
    paths = parser.parse_args()
    write_json(paths.result, differences(paths.source, paths.merged, paths.probe))


if __name__ == "__main__":
    main()
