"""The page about a decision: one self-contained file for any screen, light or dark.

It is rendered from the record alone, so that the page of an old decision can be made again.
"""

from collections.abc import Mapping
from typing import Any

import jinja2

from components.promote_bundle.comparison import in_words
from components.promote_bundle.objectives import label_of
from components.shared.contracts.pages import templates

_RECORDED = {
    "number": "decision",
    "kind": "kind",
    "challenger": "challenger",
    "champion": "champion before it",
    "lineage": "lineage",
    "because": "because",
    "by": "by",
    "run": "run",
    "git_commit": "git commit",
    "code_version": "code version",
    "recorded_at": "recorded at",
}


def render(document: Mapping[str, Any]) -> str:
    """Return the HTML page of promotion.json; the same document gives the same bytes.

    A document of a bundle that was the champion already shows nothing of the earlier decision but
    its record: nothing was compared.
    """
    decision = document["decision"] or {}
    evidence = {} if document["outcome"] == "unchanged" else decision.get("evidence", {})
    record = {
        title: decision[name] for name, title in _RECORDED.items() if decision.get(name) is not None
    }
    return _template().render(
        **document,
        compared=evidence.get("comparison"),
        first=evidence.get("first"),
        spending=evidence.get("spending"),
        left_out_groups=evidence.get("left_out_groups", 0),
        guards=evidence.get("guards", []),
        slices=evidence.get("slices", []),
        slice_tolerance=evidence.get("slice_tolerance", 0.0),
        record={title: value for title, value in record.items() if value != ""},
    )


def _template() -> jinja2.Template:
    environment = templates("components.promote_bundle.templates")
    environment.filters |= {
        "number": lambda value: "none" if value is None else f"{value:.4f}",
        "signed": lambda value: "none" if value is None else f"{value:+.4f}",
        "probability": lambda value: "none" if value is None else f"{value:.3g}",
        "confidence": lambda value: f"{value:.7g}",
        "words": in_words,
        "label": label_of,
        "sentence": lambda reason: f"{reason[:1].upper()}{reason[1:]}.",
    }
    return environment.get_template("promotion.html.jinja")
