"""Plots of a page: their own ids, the page's colours, a text alternative, the same bytes."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from components.evaluate.report import plots
from components.evaluate.report.plots import Plot, thinned
from tests.components.evaluate.report.examples import predictions


def _plots() -> list[Plot]:
    shown = predictions()
    band = np.linspace(0.1, 1, 5), np.full(5, 0.1), np.full(5, 0.3)
    return [
        plots.roc(shown),
        plots.precision_recall(shown),
        plots.reliability(shown),
        plots.score_histogram(shown, 0.6, ("None", 'a "<b>" & c')),
        plots.risk_coverage({"softmax": shown, "gate": predictions(seed=1)}, {"softmax": band}),
    ]


@pytest.fixture(scope="module")
def drawn() -> list[Plot]:
    return _plots()


def test_ids_of_all_plots_differ_and_references_stay_inside(drawn: list[Plot]) -> None:
    seen: set[str] = set()
    for plot in drawn:
        ids = {element.get("id", "") for element in ElementTree.fromstring(plot.svg).iter()} - {""}
        assert not ids & seen
        seen |= ids
        used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', plot.svg))
        assert used
        assert used <= ids


def test_colours_are_the_pages_and_nothing_tells_time_or_tool(drawn: list[Plot]) -> None:
    for plot in drawn:
        assert not re.search(r"#[0-9a-fA-F]{6}", plot.svg)
        assert "var(--" in plot.svg
        assert not re.search(r"metadata|Matplotlib v|xmlns|20\d\d-", plot.svg)


def test_every_plot_has_a_text_alternative(drawn: list[Plot]) -> None:
    for plot in drawn:
        root = ElementTree.fromstring(plot.svg)
        assert root.get("role") == "img"
        assert len(root.get("aria-label", "")) > 40
        assert plot.note.endswith(".")


def test_a_key_names_the_series_and_the_band_is_explained(drawn: list[Plot]) -> None:
    assert drawn[3].key == (("--negative", "None"), ("--positive", 'a "<b>" & c'))
    assert drawn[4].key == (("--series-0", "softmax"), ("--series-1", "gate"))
    assert "Shaded: 95 % interval." in drawn[4].note


def test_the_same_data_give_the_same_bytes(drawn: list[Plot]) -> None:
    assert _plots() == drawn


def test_curves_are_thinned_to_what_a_screen_shows() -> None:
    assert thinned(5, 200).tolist() == [0, 1, 2, 3, 4]
    rows = thinned(100_000, 200)
    assert len(rows) == 200
    assert (rows[0], rows[-1]) == (0, 99_999)
