"""format.json: what the graphs of an ONNX form take and give, and how they were compared.

onnx/model.onnx     the model of one view; of several, the full image alone
onnx/tiles.onnx     of several views: all of them, from the image and the first graph's features
onnx/format.json    this document
onnx_int8/          the same, quantised, with a policy.json of its own
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from components.shared.contracts.artifacts import write_json
from components.shared.contracts.documents import read_object
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.listing import shown
from components.shared.contracts.outcomes import DEFER, Outcomes
from components.shared.policies.early_exit import EarlyExit

__all__ = [
    "FORMAT",
    "MODEL",
    "TILES",
    "OnnxFormat",
    "decision_names",
    "read_format",
    "weights_of",
    "write_format",
]

MODEL, TILES, FORMAT = "model.onnx", "tiles.onnx", "format.json"
# Earlier releases refuse fields that they do not know.
_OF_SOME = ("resizes", "quantisation", "reference_logits")


@dataclass(frozen=True)
class OnnxFormat:
    """The document of format.json.

    Attributes:
        opset: Version of ONNX's operators.
        image_size: S of the input `images`, (N, S, S, 3) uint8 RGB.
        decisions: Name of each code of the output `decision`.
        outputs: For each graph, what its outputs are: name, dtype, axes, meaning.
        early_exit: Where a full image's margin before calibration is enough, the document of
            early_exit.json; None for a model of one view, or where all views are always needed.
        resizes: Whether model.onnx takes images of any size, (N, H, W, 3), and resizes them to S
            itself.
        parity: Numbers of the comparison with the bundle's own model, for people.
        quantisation: How the INT8 form was made, for people: images that gave the ranges, bits of
            weights, number of the backbone's layers, and positions of those that stay in float.
        metrics: Metrics of a form that decides on its own, for people.
        reference_logits: Logits of the reference image by a form that has other logits than the
            bundle's model; empty for one that has the same.
    """

    opset: int
    image_size: int
    decisions: list[str]
    outputs: dict[str, dict[str, str]]
    early_exit: EarlyExit | None = None
    resizes: bool = False
    parity: dict[str, Any] = field(default_factory=dict)
    quantisation: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    reference_logits: list[float] = field(default_factory=list)

    @property
    def has_tiles(self) -> bool:
        """Whether the model is of several views."""
        return TILES in self.outputs


def weights_of(graph: Path) -> Path:
    """Return the file beside a graph that has its weights; it is there where they are too many."""
    return graph.with_name(f"{graph.name}.data")


def decision_names(outcomes: Outcomes) -> list[str]:
    """Return the name of each code: the K outcomes, then "defer", then that of several outcomes."""
    return [*outcomes.names, DEFER, "both" if len(outcomes.names) == 2 else "several"]


def write_format(folder: Path, document: OnnxFormat) -> None:
    """Write format.json; of what not every form has, only what this one has."""
    values = asdict(document)
    kept = {name: value for name, value in values.items() if value or name not in _OF_SOME}
    write_json(folder / FORMAT, kept)


def read_format(folder: Path, outcomes: Outcomes, where: str = "") -> OnnxFormat:
    """Read format.json of a form.

    Args:
        folder: Of the form.
        outcomes: Of its policy.
        where: What messages call the folder; empty: its path.

    Raises:
        ArtifactError: It is damaged, or of another policy.
    """
    found, where = read_object(folder / FORMAT, OnnxFormat), where or str(folder)
    if found.decisions != decision_names(outcomes):
        raise ArtifactError(
            f"{where}/{FORMAT}: has the decisions {shown(found.decisions)}, the policy"
            f" {shown(decision_names(outcomes))}; the form belongs to another bundle"
        )
    return found
