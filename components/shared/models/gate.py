"""The gate, which decides whether stage 1 answers, and its directory form.

Either a selection head on the backbone's features (SelectiveNet, Geifman & El-Yaniv 2019, arXiv
1901.09192), or the confidence of a classifier that was trained to be unsure where it errs
(Gatekeeper, Rabanser et al. 2025, arXiv 2502.19335). Directory form: gate.json, and
gate.safetensors for the head.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import nn

from components.shared.contracts.artifacts import write_json
from components.shared.contracts.documents import read_object
from components.shared.models.linear import HeadLinear
from components.shared.models.loading import load_weights

_WIDTH = 512  # of the hidden layer, as published
_DOCUMENT, _WEIGHTS = "gate.json", "gate.safetensors"
SELECTIVE_NET, GATEKEEPER = "selectivenet", "gatekeeper"


@dataclass(frozen=True)
class _Document:
    kind: Literal["selectivenet", "gatekeeper"]


class GateHead(nn.Module):
    """SelectiveNet's selection head: (B, 2h) features to (B,) raw scores, the gate's log-odds.

    Layer normalisation instead of the published batch normalisation, whose statistics are not valid
    for averaged weights and differ between ranks.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.hidden = HeadLinear(n_features, _WIDTH)
        self.norm = nn.LayerNorm(_WIDTH)
        self.out = HeadLinear(_WIDTH, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return raw scores (B,), larger for "answer"."""
        scores: torch.Tensor = self.out(self.norm(torch.relu(self.hidden(features)))).squeeze(1)
        return scores


class Gate:
    """A fitted gate; `head` is None if the classifier's confidence is the score."""

    def __init__(self, head: GateHead | None) -> None:
        self.head = head

    def scores(self, features: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return raw scores (B,) from features (B, 2h) and logits (B, C)."""
        if self.head is not None:
            return torch.Tensor(self.head(features))

        # The log-odds of the predicted class against all others.
        log_p = logits.double().log_softmax(dim=1).sort(dim=1, descending=True).values
        return (log_p[:, 0] - log_p[:, 1:].logsumexp(dim=1)).to(logits.dtype)

    def save(self, directory: Path) -> None:
        """Write gate.json and, for a selection head, gate.safetensors."""
        kind = GATEKEEPER if self.head is None else SELECTIVE_NET
        write_json(directory / _DOCUMENT, {"kind": kind})
        if self.head is not None:
            tensors = {
                name: tensor.detach().cpu().contiguous()
                for name, tensor in self.head.state_dict().items()
            }
            save_file(tensors, directory / _WEIGHTS)

    @classmethod
    def load(cls, directory: Path, *, n_features: int, where: str = "") -> "Gate":
        """Read a gate that `save` wrote; a selection head is in eval mode.

        Args:
            directory: The directory.
            n_features: Number of features that the head sees.
            where: What messages call the directory; empty: its path.

        Raises:
            ArtifactError: The files are no gate on `n_features` features.
        """
        if read_object(directory / _DOCUMENT, _Document).kind == GATEKEEPER:
            return cls(None)
        head = GateHead(n_features)
        load_weights(head, directory / _WEIGHTS, where or str(directory))
        return cls(head.eval())


def gate_files(directory: Path) -> list[Path]:
    """Return the gate's files in a directory; an empty list if it holds no gate."""
    return [directory / name for name in (_DOCUMENT, _WEIGHTS) if (directory / name).is_file()]
