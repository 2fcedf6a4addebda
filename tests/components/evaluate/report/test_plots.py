"""Plots of a page: their own ids, the page's colours, a text alternative, the same bytes."""

import dataclasses
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from components.evaluate.report import plots
from components.evaluate.report.plots import Plot, thinned
from components.shared.contracts.outcomes import Outcomes
from tests.components.evaluate.report.examples import class_predictions, predictions

ODD = ('a "<b>" & c', "Straße $x_1$ 道路")


def _plots() -> list[Plot]:
    shown = predictions()
    _, odd = class_predictions(Outcomes.of(ODD))
    band = np.linspace(0.1, 1, 5), np.full(5, 0.1), np.full(5, 0.3)
    return [
        plots.roc(shown),
        plots.precision_recall(shown),
        plots.reliability(shown),
        plots.score_histogram(odd, 0.6),
        plots.risk_coverage({"softmax": shown, "gate": predictions(seed=1)}, {"softmax": band}),
    ]


def _plots_of_classes(n_classes: int) -> list[Plot]:
    names = tuple(f"a class of road signs with a long name, number {k}" for k in range(n_classes))
    _, shown = class_predictions(Outcomes.of(names), n=200)
    return [
        plots.reliability(shown),
        plots.confidence_histogram(shown, None),
        plots.risk_coverage({"softmax": shown}),
    ]


@pytest.fixture(scope="module")
def drawn() -> list[Plot]:
    return _plots()


@pytest.fixture(scope="module", params=[3, 43])
def page(request: pytest.FixtureRequest, drawn: list[Plot]) -> list[Plot]:
    """The plots of a page: of a binary task, or of several classes."""
    return drawn if request.param == 3 else _plots_of_classes(request.param)


def test_ids_of_all_plots_differ_and_references_stay_inside(page: list[Plot]) -> None:
    seen: set[str] = set()
    for plot in page:
        ids = {element.get("id", "") for element in ElementTree.fromstring(plot.svg).iter()} - {""}
        assert not ids & seen
        seen |= ids
        used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', plot.svg))
        assert used
        assert used <= ids


def test_colours_are_the_pages_and_nothing_tells_time_or_tool(page: list[Plot]) -> None:
    for plot in page:
        assert not re.search(r"#[0-9a-fA-F]{6}", plot.svg)
        assert "var(--" in plot.svg
        assert not re.search(r"metadata|Matplotlib v|xmlns|20\d\d-", plot.svg)


def test_every_plot_has_a_text_alternative(page: list[Plot]) -> None:
    for plot in page:
        root = ElementTree.fromstring(plot.svg)
        assert root.get("role") == "img"
        assert len(root.get("aria-label", "")) > 40
        assert plot.note.endswith(".")


def test_a_key_names_the_series_and_the_band_is_explained(drawn: list[Plot]) -> None:
    assert drawn[3].key == tuple(zip(("--negative", "--positive"), ODD, strict=True))
    assert drawn[4].key == (("--series-0", "softmax"), ("--series-1", "gate"))
    assert "Shaded: 95 % interval." in drawn[4].note


def test_titles_have_the_positive_class_and_drawings_no_class(drawn: list[Plot]) -> None:
    assert [plot.title for plot in drawn[:4]] == [
        "ROC of Roadwork",
        "Precision and recall of Roadwork",
        "Reliability of the probability of Roadwork",
        f"Predicted probability of {ODD[1]}",
    ]
    for plot in (*drawn, *_plots_of_classes(3)):
        texts = [element.text or "" for element in ElementTree.fromstring(plot.svg).iter("text")]
        assert texts
        assert not [text for text in texts if "Roadwork" in text or "class" in text or "$" in text]


def test_several_classes_have_the_reliability_of_the_most_probable_one() -> None:
    reliability, histogram, _ = _plots_of_classes(5)
    assert reliability.title == "Reliability of the most probable class"
    assert histogram.key == (("--negative", "right"), ("--positive", "wrong"))


def test_the_dot_of_a_policy_with_sets_is_at_the_risk_of_its_sets() -> None:
    _, shown = class_predictions(Outcomes.of(("a", "b", "c")))
    sure = dataclasses.replace(
        shown, answered=np.arange(300) < 150, answer_sets=np.ones((300, 3), bool)
    )
    label = ElementTree.fromstring(plots.risk_coverage({"scrc": sure}).svg).get("aria-label", "")
    assert "scrc: error rate 0.000 at coverage 0.500" in label


def test_the_same_data_give_the_same_bytes(drawn: list[Plot]) -> None:
    assert _plots() == drawn


def test_curves_are_thinned_to_what_a_screen_shows() -> None:
    assert thinned(5, 200).tolist() == [0, 1, 2, 3, 4]
    rows = thinned(100_000, 200)
    assert len(rows) == 200
    assert (rows[0], rows[-1]) == (0, 99_999)
