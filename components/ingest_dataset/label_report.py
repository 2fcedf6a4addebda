"""What the labels of the sources mean, as rows for the manifest and as lines for the log."""

import itertools
from collections.abc import Sequence

from components.ingest_dataset.sources.labels import Labelling
from components.ingest_dataset.sources.records import Label, Source
from components.shared.contracts.listing import first_of, say

LabelRow = dict[str, str | int]

_PRINTED_LABELS = 200  # a table of classes to look at, of any real task all of them


def label_rows(sources: Sequence[Source], labelling: Labelling) -> list[LabelRow]:
    """Return label, class and number of rows for every label of every source, for the manifest."""
    return [
        {"source": source.name, "label": str(label), "class": name, "count": count[label]}
        for source, classes, count in zip(
            sources, labelling.of_sources, labelling.counts, strict=True
        )
        for label, name in sorted(
            classes.items(), key=lambda entry: _class_order(labelling.class_names, entry)
        )
    ]


def print_labels(rows: Sequence[LabelRow], class_names: Sequence[str], origin: str) -> None:
    """Print the classes and where they come from, and label -> class: count for every source."""
    named = (f"{index} {name}" for index, name in enumerate(class_names))
    names = first_of(named, most=_PRINTED_LABELS)
    say(f"classes (from {origin}): {names}")
    for source, of_source in itertools.groupby(rows, key=lambda row: row["source"]):
        say(f"labels of {source}:")
        listed = list(of_source)
        for row in listed[:_PRINTED_LABELS]:
            say(f"  {row['label']} -> {row['class']}: {row['count']}")
        if len(listed) > _PRINTED_LABELS:
            say(f"  and {len(listed) - _PRINTED_LABELS} more, in the summary of manifest.json")


def _class_order(class_names: Sequence[str], entry: tuple[Label, str]) -> tuple[int, Label]:
    """Sort key: by class, the excluded labels last."""
    label, name = entry
    return class_names.index(name) if name in class_names else len(class_names), label
