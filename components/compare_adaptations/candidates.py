"""Candidates of the comparison: each mode's checkpoint with its logits, of one run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir
from components.shared.contracts.errors import ArtifactError
from components.shared.policies.logits import Logits, read_logits


@dataclass(frozen=True)
class Candidate:
    """One adaptation: its checkpoint, and its logits on VAL_SELECT."""

    mode: str
    checkpoint: Path
    manifest: Manifest
    logits: Logits
    logits_manifest: Manifest


def read_candidates(
    modes: Sequence[str], checkpoints: Sequence[Path], logits: Sequence[Path]
) -> list[Candidate]:
    """Read one candidate for each mode; the manifests alone say what belongs together.

    Args:
        modes: the modes, in the order of the result.
        checkpoints: Checkpoint artifacts, in any order.
        logits: ValSelectLogits artifacts, in any order.

    Raises:
        ArtifactError: an artifact is missing, given twice, or of other data than the first.
    """
    found_checkpoints = [(path, verify_dir(path, Kind.CHECKPOINT)) for path in checkpoints]
    found_logits = [read_logits(path, "VAL_SELECT") for path in logits]
    checkpoint_of = _index_by_mode(
        modes, [manifest for _, manifest in found_checkpoints], "checkpoints"
    )
    logits_of = _index_by_mode(
        modes, [manifest for _, manifest in found_logits], "val_select_logits"
    )

    candidates = [
        Candidate(mode, *found_checkpoints[checkpoint_of[mode]], *found_logits[logits_of[mode]])
        for mode in modes
    ]
    for candidate in candidates:
        _refuse_mixed_runs(candidate, candidates[0])

    return candidates


def _index_by_mode(
    modes: Sequence[str], manifests: Sequence[Manifest], name: str
) -> dict[str, int]:
    """Return the position of each mode's artifact; refuse a missing or repeated mode."""
    found = [str(manifest.config.get("mode")) for manifest in manifests]
    if sorted(found) != sorted(modes):
        raise ArtifactError(
            f"{name} are of modes {sorted(found)}, expected {sorted(modes)}; use the artifacts of"
            " one run"
        )
    return {mode: position for position, mode in enumerate(found)}


def _refuse_mixed_runs(candidate: Candidate, first: Candidate) -> None:
    """Raise ArtifactError where logits or data of a candidate are those of another training."""
    checkpoint, logits = candidate.manifest, candidate.logits_manifest
    if (checkpoint.config_digest, checkpoint.inputs) != (logits.config_digest, logits.inputs):
        raise ArtifactError(
            f"checkpoint and logits of mode {candidate.mode!r} are of different trainings; use the"
            " artifacts of one run"
        )

    same_samples = candidate.logits.sample_ids == first.logits.sample_ids
    if _data(checkpoint) != _data(first.manifest) or not same_samples:
        raise ArtifactError(
            f"modes {first.mode!r} and {candidate.mode!r} were trained on different data; use the"
            " artifacts of one run"
        )


def _data(checkpoint: Manifest) -> dict[str, str]:
    """Return the digests of what a model was trained on.

    Features, which frozen training alone reads, follow from these.
    """
    names = ("dataset", "splits", "backbone")
    return {name: checkpoint.inputs[name] for name in names if name in checkpoint.inputs}
