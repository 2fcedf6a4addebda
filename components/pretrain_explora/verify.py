r"""Verification, in a process of its own, that the merged backbone on disk is the trained one.

python -m components.pretrain_explora.verify \
    <source backbone> <merged backbone> <probe.safetensors> <verified.json>
"""

import argparse
from pathlib import Path

from components.shared.contracts.artifacts import write_json
from components.shared.contracts.errors import StreetVisionError
from components.shared.contracts.step import fail
from components.shared.models.backbone import exact_tokens, load_backbone
from components.shared.models.loading import load_adapter, read_tensors


def differences(source: Path, merged: Path, probe: Path) -> dict[str, float]:
    """Return the largest absolute difference from the trained backbone's tokens on the probe.

    Args:
        source: Folder of the backbone before pre-training.
        merged: Folder of the merged backbone, with the adapter in `adapter/`.
        probe: safetensors file with `pixels` (n, 3, S, S) and the trained backbone's `tokens`.

    Returns:
        One difference of the merged backbone ("merged"), and one of the source with the stored
        adapter ("adapter").

    Raises:
        DataError: A backbone is refused (`load_backbone`).
        ArtifactError: The adapter or the probe is refused.
    """
    tensors = read_tensors(probe, {"pixels": None, "tokens": None}, str(probe.parent))
    models = {
        "merged": load_backbone(merged),
        "adapter": load_adapter(
            load_backbone(source), merged / "adapter", f"adapter={str(merged / 'adapter')!r}"
        ),
    }
    found = {}
    for name, model in models.items():
        tokens = exact_tokens(model.eval(), tensors["pixels"])
        found[name] = float((tokens - tensors["tokens"]).abs().max())

    return found


def main() -> None:
    """Write the differences of the command line's backbones as JSON.

    Ends with 42 where a backbone or the adapter cannot be loaded (`differences`).
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    for name in ("source", "merged", "probe", "result"):
        parser.add_argument(name, type=Path)
    paths = parser.parse_args()
    try:
        found = differences(paths.source, paths.merged, paths.probe)
    except StreetVisionError as error:
        fail(error)
    write_json(paths.result, found)


if __name__ == "__main__":
    main()
