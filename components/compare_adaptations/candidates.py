"""Which checkpoint and which logits belong to which mode, and are they of one run?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir
from components.shared.contracts.errors import ArtifactError
from components.shared.policies.logits import Logits, read_logits


@dataclass(frozen=True)
class Candidate:
    """One adaptation: its checkpoint, and what it says about VAL_SELECT."""

    mode: str
    checkpoint: Path
    manifest: Manifest
    logits: Logits
    logits_manifest: Manifest


def read_candidates(
    modes: Sequence[str], checkpoints: Sequence[Path], logits: Sequence[Path]
) -> list[Candidate]:
    """One candidate for each mode, in the order of `modes`; what belongs together is told by the
    manifests alone.

    Raises ArtifactError where one is missing, doubled, or of other data than the first.
    """
    bases = _by_mode(
        modes, [(path, verify_dir(path, Kind.CHECKPOINT)) for path in checkpoints], "checkpoints"
    )
    read = {path: read_logits(path, "VAL_SELECT") for path in logits}
    says = _by_mode(
        modes, [(path, manifest) for path, (_, manifest) in read.items()], "val_select_logits"
    )
    candidates = [Candidate(mode, *bases[mode], *read[says[mode][0]]) for mode in modes]
    for candidate in candidates:
        _check(candidate, candidates[0])
    return candidates


def _by_mode(
    modes: Sequence[str], found: Sequence[tuple[Path, Manifest]], name: str
) -> dict[str, tuple[Path, Manifest]]:
    have = [str(manifest.config.get("mode")) for _, manifest in found]
    if sorted(have) != sorted(modes):
        raise ArtifactError(
            f"{name} are of modes {sorted(have)}, expected {sorted(modes)}: take all from one run"
        )
    return dict(zip(have, found, strict=True))


def _check(candidate: Candidate, first: Candidate) -> None:
    ours, theirs = candidate.manifest, candidate.logits_manifest
    if (ours.config_digest, ours.inputs) != (theirs.config_digest, theirs.inputs):
        raise ArtifactError(
            f"checkpoint and logits of mode {candidate.mode!r} are of different trainings"
        )
    same = candidate.logits.sample_ids == first.logits.sample_ids
    if ours.inputs != first.manifest.inputs or not same:
        raise ArtifactError(
            f"modes {first.mode!r} and {candidate.mode!r} were trained on different data"
        )
