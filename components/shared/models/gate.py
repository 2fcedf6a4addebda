"""What decides whether stage 1 answers, and how is it stored?

Either a head of its own on the backbone's features (SelectiveNet), or the classifier's own
confidence after it was taught to be unsure where it errs (Gatekeeper). Directory form: gate.json,
and gate.safetensors for the head.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from components.shared.contracts.artifacts import write_json

_WIDTH = 512  # as published
_DOCUMENT, _WEIGHTS = "gate.json", "gate.safetensors"
SELECTIVE_NET, GATEKEEPER = "selectivenet", "gatekeeper"


class GateHead(nn.Module):
    """SelectiveNet's selection head: (B, 2h) features -> (B,) raw scores, the gate's log-odds.

    Layer instead of batch normalisation: weights are averaged and ranks differ, which batch
    statistics do not survive.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_features, _WIDTH)
        self.norm = nn.LayerNorm(_WIDTH)
        self.out = nn.Linear(_WIDTH, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Raw scores, larger for "answer"."""
        scores: torch.Tensor = self.out(self.norm(torch.relu(self.hidden(features)))).squeeze(1)
        return scores


class Gate:
    """A fitted gate; `head` is None where the classifier's confidence is the score."""

    def __init__(self, head: GateHead | None) -> None:
        self.head = head

    def scores(self, features: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """(B,) raw scores from features (B, 2h) and logits (B, K)."""
        if self.head is not None:
            return torch.Tensor(self.head(features))
        log_p = logits.double().log_softmax(dim=1).sort(dim=1, descending=True).values
        return (log_p[:, 0] - log_p[:, 1:].logsumexp(dim=1)).to(logits.dtype)

    def save(self, directory: Path) -> None:
        """Write gate.json and, for a head, gate.safetensors."""
        kind = GATEKEEPER if self.head is None else SELECTIVE_NET
        write_json(directory / _DOCUMENT, {"kind": kind})
        if self.head is not None:
            tensors = {
                name: tensor.detach().cpu().contiguous()
                for name, tensor in self.head.state_dict().items()
            }
            save_file(tensors, directory / _WEIGHTS)

    @classmethod
    def load(cls, directory: Path) -> "Gate":
        """Read what `save` wrote."""
        if json.loads((directory / _DOCUMENT).read_text(encoding="utf-8"))["kind"] == GATEKEEPER:
            return cls(None)
        tensors = load_file(directory / _WEIGHTS)
        head = GateHead(tensors["hidden.weight"].shape[1])
        head.load_state_dict(tensors)
        return cls(head.eval())


def gate_files(directory: Path) -> list[Path]:
    """The gate's files in a directory; empty where it holds no gate."""
    return [directory / name for name in (_DOCUMENT, _WEIGHTS) if (directory / name).is_file()]
