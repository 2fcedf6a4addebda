"""Evidence is shown where it is about the error, and speaks for what the page says."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from components.evaluate.report.evidence import evidence_of
from components.evaluate.report.report import render
from components.shared.contracts.outcomes import Outcomes
from components.shared.data.contribution_colours import AGAINST, FOR
from components.shared.data.margin_parts import MarginParts
from tests.components.evaluate.report.examples import hard_example, report_data

LOGITS = np.array([2.0, -1.0, 0.5])
BINARY = Outcomes.of(("None", "Roadwork"), "binary", "Roadwork")
REVERSED = Outcomes.of(("Roadwork", "None"), "binary", "Roadwork")
ONE_OF_THREE = Outcomes.of(("stop", "yield", "bus"), "binary", "yield")
THREE = Outcomes.of(("stop", "yield", "bus"))
PATCHES = np.array([[0.75, 0.0], [0.0, -0.25]])


def _parts(speaks_for: int, label: int) -> MarginParts:
    margin = float(LOGITS[speaks_for] - LOGITS[label])
    return MarginParts(speaks_for, margin, 0.5, 0.1, PATCHES, (0.25, 0.5, 0.5))


def _colour(overlay: bytes) -> tuple[int, ...]:
    """Colour of the upper left patch."""
    with Image.open(io.BytesIO(overlay)) as picture:
        return tuple(np.asarray(picture)[0, 0, :3].tolist())


@pytest.mark.parametrize(
    ("outcomes", "speaks_for", "label", "decision", "name", "sign"),
    [
        (BINARY, 1, 0, 1, "Roadwork", 1),  # false alarm
        (BINARY, 0, 1, 0, "Roadwork", -1),  # missed: what spoke for None speaks against Roadwork
        (REVERSED, 0, 1, 1, "Roadwork", 1),
        (REVERSED, 1, 0, 0, "Roadwork", -1),
        (ONE_OF_THREE, 1, 2, 1, "yield", 1),
        (ONE_OF_THREE, 2, 1, 0, "yield", -1),
        (THREE, 2, 0, 2, "bus", 1),
    ],
)
def test_orange_speaks_for_the_positive_or_the_decided_class(
    outcomes: Outcomes, speaks_for: int, label: int, decision: int, name: str, sign: int
) -> None:
    found = evidence_of(_parts(speaks_for, label), LOGITS, label, decision, outcomes)
    assert found is not None
    assert found.speaks_for == name
    assert _colour(found.overlay) == (FOR if sign > 0 else AGAINST)
    assert (found.patches, found.cls) == (sign * 0.5, sign * 0.5)
    assert (found.end, found.cls_share, found.box) == (0.75, 0.5, (25.0, 50.0, 50.0))


def test_parts_of_another_error_or_another_model_are_not_shown() -> None:
    assert evidence_of(None, LOGITS, 0, 1, THREE) is None
    # The calibrator made another class the decided one.
    assert evidence_of(_parts(2, 0), LOGITS, 0, 1, THREE) is None
    # Both classes are on the same side of the question.
    assert evidence_of(_parts(2, 0), LOGITS, 0, 1, ONE_OF_THREE) is None
    # The gate's classifier has other logits.
    assert evidence_of(_parts(2, 0), np.add(LOGITS, [0, 0, 1e-3]), 0, 2, THREE) is None


def test_the_page_has_both_pictures_and_the_share_of_the_cls_token() -> None:
    data = report_data()
    evidence = evidence_of(_parts(1, 0), LOGITS, 0, 1, BINARY)
    shown = dataclasses.replace(hard_example(), evidence=evidence)
    html = render(dataclasses.replace(data, hard=[shown, hard_example()]))
    assert html.count("data:image/jpeg;base64,") == 2  # each photograph once
    assert html.count("data:image/png;base64,") == 1
    assert html.count('href="#photo-1"') == html.count('id="photo-1"') == 1
    assert 'x="25.000" y="50.000" width="50.000"' in html
    assert "patches +0.50 (each up to 0.750), CLS token +0.50; <b>CLS token 50 %</b>" in html
    assert "Under a photograph" in html
    assert "Under a photograph" not in render(data)


def test_names_cannot_become_markup() -> None:
    evil = "<b>'\"&x</b>"
    evidence = evidence_of(_parts(1, 0), LOGITS, 0, 1, BINARY)
    assert evidence is not None
    shown = dataclasses.replace(
        hard_example(), evidence=dataclasses.replace(evidence, speaks_for=evil), path=evil
    )
    html = render(dataclasses.replace(report_data(), hard=[shown]))
    assert evil not in html
