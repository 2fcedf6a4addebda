"""The report: what a reader, a browser and an attacker meet."""

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from components.evaluate.report.report import interval, number, render
from components.evaluate.report.scorecard import METRICS, Predictions
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.policy import softmax_policy
from components.shared.stats import metrics
from tests.components.evaluate.report.examples import predictions, report_data, result

EVIL = "<script>alert('x')</script>&\""
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
    light, dark = (
        set(re.findall(r"(--[a-z0-9-]+):", block))
        for block in re.findall(r":root \{([^}]*)\}", html)
    )
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
    for metric in METRICS:
        assert number(shown.metrics[metric.name]["value"]) in text, metric.name
        assert interval(shown.metrics[metric.name]["interval_95"]) in text, metric.name
    for cell in metrics.confusion(shown.predictions.truth, shown.predictions.decision):
        assert f">{int(cell)}</b>" in html
    assert "Roadwork if its probability exceeds 0.6225" in text
    assert "Probabilities: the model's own; no calibrator was better" in text
    assert "score 0.021" in text
    assert "800 None, 100 Roadwork" in text
    assert data.lineage["dataset"].content_digest in text


def test_the_same_data_give_the_same_bytes(html: str) -> None:
    assert render(report_data()) == html


def test_text_from_the_data_cannot_become_markup() -> None:
    plain = report_data()
    hard = dataclasses.replace(plain.hard[0], sample_id=EVIL, path=EVIL, label=EVIL, decision=EVIL)
    shown = plain.policies["softmax"]
    data = dataclasses.replace(
        plain,
        class_names=(EVIL, "<img src=x>"),
        policies={
            EVIL: dataclasses.replace(
                shown, policy=softmax_policy(Outcomes.of(("None", EVIL), "binary", EVIL), 0.5)
            ),
            "b": shown,
        },
        hard=[hard],
        counts={EVIL: EVIL, "n_per_class": {EVIL: 1}, "sources": [EVIL]},
        lineage={EVIL: dataclasses.replace(plain.lineage["dataset"], step=EVIL, code_version=EVIL)},
    )
    page = Page(render(data))
    assert page.open == []
    assert not page.all("script")
    assert len(page.all("img")) == 1
    assert page.text.count("alert('x')") > 10


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
    margin = np.where(truth, 1.0, -1.0)
    every, none = np.ones(60, bool), np.zeros(60, bool)
    faultless = Predictions(
        truth, truth, margin, np.abs(margin), tuple(map(str, range(60))), every, none
    )
    text = Page(render(dataclasses.replace(report_data(faultless), hard=[]))).text
    assert "The policy made no error on VAL_TEST." in text
    silent = dataclasses.replace(faultless, decision=np.zeros(60, bool), margin=-margin)
    text = Page(render(report_data(silent))).text
    assert re.search(r"Coverage at precision 0\.95\s↑\s+none", text)


def test_few_groups_come_with_a_warning(html: str) -> None:
    assert "resamples of 100 groups." in html
    few = dataclasses.replace(predictions(), groups=tuple(f"drive{row % 6}" for row in range(300)))
    assert "6 groups; with so few groups they are too narrow" in render(report_data(few))


def test_large_evaluations_stay_small_files() -> None:
    assert len(render(report_data(predictions(20_000)))) < 300_000
