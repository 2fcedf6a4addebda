"""Reading of Calibration artifacts, which hold one fitted calibrator or none."""

from pathlib import Path

from components.shared.calibration import registry
from components.shared.calibration.calibrator import Calibrator
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir
from components.shared.contracts.documents import read_json
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.listing import shown

FILE = "calibrator.json"


def read_calibrator(path: Path, logits: Manifest) -> tuple[Calibrator | None, Manifest]:
    """Verify and read a Calibration artifact that was fitted on these logits.

    The calibrator is None where the logits stay uncalibrated; comparison.json says why.

    Raises:
        ArtifactError: the artifact is damaged, or was fitted on other logits.
    """
    manifest = verify_dir(path, Kind.CALIBRATION)
    fitted_on = manifest.inputs.get("val_calib_logits")
    if fitted_on != logits.content_digest:
        raise ArtifactError(
            f"{path}: was fitted on other logits ({shown(fitted_on)}); use the artifacts of one run"
        )
    document = read_json(path / FILE)
    if document is None:
        return None, manifest
    return registry.parse(document, str(path / FILE)), manifest
