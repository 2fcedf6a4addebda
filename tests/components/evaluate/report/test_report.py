"""The report: what a reader, a browser and an attacker meet."""

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from components.evaluate.report.guarantees import PolicyComparison, measure_guarantees
from components.evaluate.report.report import ReportData, number, render, spread
from components.evaluate.report.scorecard import metrics_of
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.policy import ScrcPolicy
from tests.components.evaluate.report.examples import (
    ROADWORK,
    TARGETS,
    binary,
    class_predictions,
    predictions,
    report_data,
    result,
)

EVIL = "<script>alert('x')</script>&\""
SIGNS = ("stop", "yield", "speed_30", "workers_in_road", "a sign with a name of many words")
VOID = {"meta", "img", "br", "path", "use", "rect"}


class Page(HTMLParser):
    """Tags in order with their attributes, visible text, and tags that were never closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def html() -> str:
    return render(report_data())


def test_every_tag_is_closed_and_every_id_is_unique(html: str) -> None:
    page = Page(html)
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:url\(#|href="#)([^")]+)', html)
    assert used
    assert set(used) <= set(ids)


def test_the_page_needs_nothing_from_outside(html: str) -> None:
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "form"}
    sources = [
        value
        for _, a in page.tags
        for name, value in a.items()
        if name in ("src", "href", "xlink:href")
    ]
    assert sources
    assert all(source and source.startswith(("data:image/jpeg;base64,", "#")) for source in sources)
    policy = next(a["content"] for a in page.all("meta") if "http-equiv" in a)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert "@import" not in html


def test_the_page_follows_the_readers_light_or_dark_mode(html: str) -> None:
    assert "prefers-color-scheme: dark" in html
    svgs = re.findall(r"<svg.*?</svg>", html, flags=re.S)
    assert len(svgs) == 5
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", "".join(svgs)))
    # Those that all pages share come first, then the report's own.
    of_blocks = [
        set(re.findall(r"(--[a-z0-9-]+):", block))
        for block in re.findall(r":root \{([^}]*)\}", html)
    ]
    light, dark = set().union(*of_blocks[::2]), set().union(*of_blocks[1::2])
    assert used <= light
    assert used <= dark
    assert not re.search(r"#[0-9a-fA-F]{6}", "".join(svgs)), "a colour that no mode adapts"


def test_pictures_and_plots_speak_to_a_screen_reader(html: str) -> None:
    page = Page(html)
    assert [a["alt"] for a in page.all("img")] == ["missed: drive/7.jpg"]
    assert all(a["role"] == "img" and a["aria-label"] for a in page.all("svg"))
    assert page.all("html")[0]["lang"] == "en"
    headings = [tag for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1
    assert len(page.all("caption")) == len(page.all("table"))


def test_the_reader_finds_the_numbers(html: str) -> None:
    data, text = report_data(), Page(html).text
    shown = data.policies["softmax"]
    for name in metrics_of("binary"):
        assert number(shown.metrics[name]["value"]) in text, name
        assert spread(shown.metrics[name], 100) in text, name
    for cell in shown.confusion.ravel().tolist():
        assert f">{cell}</b>" in html
    assert "Roadwork if its probability exceeds 0.6225" in text
    assert "-1 -> exclude: 3 (a)" in text
    assert "Probabilities: the model's own; no calibrator was better" in text
    assert "is Roadwork (0.021), decided None (0.979)" in text
    assert "800 None, 100 Roadwork" in text
    assert data.lineage["dataset"].content_digest in text


def _of_classes(outcomes: Outcomes, n: int = 300) -> ReportData:
    policy, shown = class_predictions(outcomes, n)
    return report_data(shown, policy)


@pytest.mark.parametrize("names", [("Plain", "Pothole"), SIGNS[:3], SIGNS])
def test_the_report_says_what_was_decided_in_the_names_of_the_classes(
    names: tuple[str, ...],
) -> None:
    page = Page(render(_of_classes(Outcomes.of(names))))
    assert page.open == []
    assert "Roadwork" not in page.text.replace("100 Roadwork", "")
    assert all(page.text.count(name) >= 3 for name in names)
    expected = "Pothole or Plain" if len(names) == 2 else f"which of {len(names)} classes"
    assert f"Evaluation report: {expected}" in page.text


def test_one_class_against_the_rest_is_said() -> None:
    text = Page(render(_of_classes(Outcomes.of(SIGNS, "binary", "stop")))).text
    assert "Evaluation report: stop against the rest of 5 classes" in text
    assert "stop, against all other classes, if its probability exceeds 0.5000" in text
    assert "ROC of stop" in text
    assert "not stop" in text


def test_several_classes_have_their_matrix_and_no_curve_of_a_positive_class() -> None:
    data = _of_classes(Outcomes.of(SIGNS))
    html = render(data)
    text, matrix = Page(html).text, data.shown.confusion
    assert len(re.findall("<svg", html)) == 3
    assert "ROC of" not in text
    assert "reward" not in text
    for name in metrics_of("multiclass"):
        assert number(data.shown.metrics[name]["value"]) in text, name
    assert "decided a sign with a name of many words" in text
    for cell in matrix.ravel().tolist():
        assert f">{cell}</b>" in html
    wrong = matrix - np.diag(np.diag(matrix))
    row, column = divmod(int(wrong.argmax()), len(SIGNS))
    first = html[html.index("<caption>Most frequent confusions") :]
    assert first.index(SIGNS[row]) < first.index(SIGNS[column])
    assert f"<td>{wrong.max()}</td>" in first


def test_many_classes_are_numbered_in_the_matrix_and_named_in_its_rows() -> None:
    names = tuple(f"class with the long name {k}" for k in range(43))
    data = _of_classes(Outcomes.of(names))
    html = render(data)
    table = html[html.index("<caption>Confusion matrix") :]
    table = table[: table.index("</table>")]
    assert all(
        f'<abbr title="{name}">{number + 1}</abbr>' in table for number, name in enumerate(names)
    )
    assert "decided class with" not in table
    cells = [int(cell or 0) for cell in re.findall(r"<td[^>]*>(\d*)</td>", table)[1:]]
    np.testing.assert_array_equal(np.reshape(cells, (43, 43)), data.shown.confusion)
    assert len(html) < 300_000


def test_a_class_without_an_image_is_said() -> None:
    policy, shown = class_predictions(Outcomes.of(SIGNS))
    truth = np.where(shown.truth == 4, 0, shown.truth)
    text = Page(render(report_data(dataclasses.replace(shown, truth=truth), policy))).text
    assert f"VAL_TEST has no image of {SIGNS[4]}." in text


def test_the_kinds_of_interval_are_said() -> None:
    data = report_data()
    text = Page(render(data)).text
    band = data.shown.metrics["ece_top_label"].get("calibrated_95")
    assert band is not None
    assert f"noise: up to {band[1]:.3f}" in text
    assert data.shown.calibration_verdict in text
    assert "Student's interval" in text
    assert "Clopper and Pearson" in text


@pytest.mark.parametrize(
    ("p_value", "verdict"),
    [
        (0.003, "p = 0.003: more than noise"),
        (0.4, "p = 0.400: no more than noise"),
        (None, "too few groups"),
    ],
)
def test_the_test_of_calibration_has_a_verdict(p_value: float | None, verdict: str) -> None:
    shown = dataclasses.replace(report_data().shown, calibration_p_value=p_value)
    assert shown.calibration_verdict == verdict


def test_an_infeasible_bundle_is_said_at_the_top() -> None:
    reason = "alpha=0.01 cannot be certified; use data of more groups"
    data = dataclasses.replace(report_data(), infeasible={"scrc": reason}, bundled="scrc")
    text = Page(render(data)).text
    top = text[: text.index("Policies")]
    assert "No bundle: policy scrc is infeasible." in top
    assert reason in top
    assert "The figures below are of policy softmax." in top
    assert f"infeasible: {reason}" in text


def test_a_policy_without_a_calibrator_has_its_reason() -> None:
    data = report_data()
    why = "temperature: VAL_CALIB has no error"
    shown = dataclasses.replace(data.shown, uncalibrated_reason=why)
    text = Page(render(dataclasses.replace(data, policies={"softmax": shown}))).text
    assert f"the model's own; {why}" in text


@pytest.mark.parametrize("max_group_images", [None, 40])
def test_a_guarantee_says_its_unit_and_has_the_other_risk_beside(
    max_group_images: int | None,
) -> None:
    shown = predictions()
    policy = ScrcPolicy(
        kind="scrc",
        outcomes=ROADWORK,
        threshold=0.5,
        threshold_margin=0.0,
        risk="error",
        alpha=0.2,
        delta=0.1,
        coverage_lower_bound=0.4,
        answer_from=(1.0, 1.0),
        max_group_images=max_group_images,
    )
    found = measure_guarantees(
        policy, shown, ("all",), attempt=1, targets=TARGETS, n_replicates=100, seed=0
    )
    html = render(dataclasses.replace(report_data(), guarantees=found))
    text = Page(html).text
    if max_group_images is None:
        assert "Certified is the risk of a random image of a random group, with" in text
        assert "about which nothing is certified" in text
        assert "≥ 0.400" in text
    else:
        assert "Certified is the risk of a random image, with" in text
        assert "of which none has more than 40 images" in text
        assert "≥ 0.400" not in text
    assert "error rate ≤ 0.2 <small>with probability at least 0.9</small>" in html
    assert number(found[0].observed_risk["value"], 4) in text
    assert number(found[0].observed_risk_per_image["value"], 4) in text
    assert "attempt" not in text

    again = [dataclasses.replace(found[0], attempt=3)]
    text = Page(render(dataclasses.replace(report_data(), guarantees=again))).text
    assert "attempt 3 on these data, and the probability is that of one" in text


def test_a_choice_by_the_report_is_said_to_flatter() -> None:
    data = report_data()
    single = Page(render(data)).text
    assert "made on VAL_SELECT and does not flatter" in single
    assert "If this table decides" not in single
    both = {**data.policies, "gate": result(predictions(noise=0.5))}
    comparison = PolicyComparison("gate", -0.1, (-0.2, -0.05))
    text = Page(
        render(dataclasses.replace(data, policies=both, comparisons={"gate": comparison}))
    ).text
    assert "If this table decides which policy is deployed, it flatters that policy" in text
    assert "The verdict is made on VAL_TEST" in text
    assert "ranks errors better: the whole interval is below zero" in text


def test_the_same_data_give_the_same_bytes(html: str) -> None:
    assert render(report_data()) == html


def test_text_from_the_data_cannot_become_markup() -> None:
    plain = report_data()
    hard = dataclasses.replace(plain.hard[0], sample_id=EVIL, path=EVIL, label=EVIL, decision=EVIL)
    policy, shown = class_predictions(Outcomes.of(("<img src=x>", EVIL)))
    data = dataclasses.replace(
        plain,
        policies={EVIL: result(shown, policy), "b": result(shown, policy)},
        hard=[hard],
        counts={EVIL: EVIL, "n_per_class": {EVIL: 1}, "sources": [EVIL]},
        lineage={EVIL: dataclasses.replace(plain.lineage["dataset"], step=EVIL, code_version=EVIL)},
        infeasible={"scrc": EVIL},
        bundled="scrc",
    )
    page = Page(render(data))
    assert page.open == []
    assert not page.all("script")
    assert len(page.all("img")) == 1
    assert page.text.count("alert('x')") > 10


def test_names_of_many_classes_cannot_become_markup() -> None:
    names = tuple(f"{EVIL}{number}" for number in range(12))
    page = Page(render(_of_classes(Outcomes.of(names))))
    assert page.open == []
    assert not page.all("script")


def test_several_policies_stand_side_by_side() -> None:
    data = report_data()
    better = result(predictions(noise=0.5))
    html = render(dataclasses.replace(data, policies={**data.policies, "gate": better}))
    page = Page(html)
    assert ">softmax</th>" in html
    assert ">gate</th>" in html
    for name in ("mcc", "augrc"):
        assert number(better.metrics[name]["value"]) in page.text
    risk = next(
        a["aria-label"] or "" for a in page.all("svg") if "Risk-coverage" in (a["aria-label"] or "")
    )
    assert "softmax: error rate" in risk
    assert "gate: error rate" in risk


def test_a_faultless_policy_and_operating_points_that_do_not_exist() -> None:
    truth = np.arange(60) % 2 == 0
    margin, groups = np.where(truth, 1.0, -1.0), tuple(map(str, range(60)))
    faultless = binary(truth, margin, 0.0, groups)
    text = Page(render(dataclasses.replace(report_data(faultless), hard=[]))).text
    assert "The policy made no error on VAL_TEST." in text
    silent = binary(truth, -margin, 2.0, groups)
    text = Page(render(report_data(silent))).text
    assert re.search(r"Coverage at precision 0\.95\s↑\s+none", text)


def test_few_groups_come_with_a_warning_and_without_intervals(html: str) -> None:
    assert "Too few groups" not in html
    few = dataclasses.replace(predictions(), groups=tuple(f"drive{row % 6}" for row in range(300)))
    text = Page(render(report_data(few))).text
    assert "Too few groups for intervals: 6." in text
    assert not re.search(r"\d\.\d+ to \d\.\d+", text[: text.index("How to read")])


def test_large_evaluations_stay_small_files() -> None:
    assert len(render(report_data(predictions(20_000)))) < 300_000
