"""Calibrator and threshold from few images, in short: errors are not amplified, 0.5 is kept."""

from tests.simulations.few_images import binormal, calibration_row, threshold_row


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_a_calibrated_model_stays_calibrated_on_thirty_images() -> None:
    """Of 40 sets without an error, none may turn the later errors into certainties."""
    cells = _cells(calibration_row(0.98, 1, 40, (30,)))
    mean, largest = map(float, cells[-1].split(","))
    assert mean < 0.06
    assert largest < 0.1


def test_few_images_do_not_move_a_right_threshold() -> None:
    *_, best, chosen = _cells(threshold_row(binormal("calibrated", 0.5, 0.0), 56, 40))
    assert float(best.split("/")[0]) < -0.008
    assert float(chosen.split("/")[0]) > -0.003


def test_a_wrong_threshold_is_moved() -> None:
    *_, chosen = _cells(threshold_row(binormal("shifted", 0.3, 3.0), 56, 40))
    assert float(chosen.split("/")[0]) > 0.2
