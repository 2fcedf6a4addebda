"""From the labels of all sources to classes: which classes there are, and what each label means.

Labels None and Roadwork, or 1 (Roadwork), 0 (None) and -1 (left out), are the contract of the NATIX
network. It holds where nothing is set and the labels are no others, and it steps aside where class
names are given or the data have labels of their own.
"""

import difflib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from components.ingest_dataset.sources.config import EXCLUDE, SourceConfig
from components.ingest_dataset.sources.records import Label, LabelTable, Source
from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import first_of, shown
from components.shared.contracts.outcomes import DEFER

NATIX = ("None", "Roadwork")
_NATIX_MAP = {"0": "None", "1": "Roadwork", "-1": EXCLUDE}
_NAMED_ROWS, _NAMED_LABELS = 10, 20
_MOST_DIGITS = 10  # of a class's number
_MISSING = ("nan", "NaN", "NaT", "<NA>")  # as pandas writes a missing value
_DEFAULT_GROUP_COLUMN = SourceConfig().group_column


@dataclass(frozen=True)
class Labelling:
    """The classes, and the class of every label.

    Attributes:
        class_names: in the order of the model's outputs.
        origin: where the names and their order come from, in words.
        of_sources: for each source its labels, each with a class name or "exclude".
        counts: for each source the rows of each label.
    """

    class_names: tuple[str, ...]
    origin: str
    of_sources: list[dict[Label, str]]
    counts: list[Counter[Label]]

    @property
    def n_used(self) -> int:
        """Number of rows that are not excluded."""
        return sum(
            count[label]
            for classes, count in zip(self.of_sources, self.counts, strict=True)
            for label, name in classes.items()
            if name != EXCLUDE
        )


def label_sources(sources: Sequence[Source], class_names: Sequence[str] | None) -> Labelling:
    """Return the classes and the class of every label.

    Args:
        sources: the opened sources.
        class_names: the classes; None: those of the data.

    Raises:
        DataError: a label has no class, or a class no rows; the message names rows and remedies.
    """
    counts = [
        Counter(label for table in source.tables for label in table.labels) for source in sources
    ]
    missing = [
        _missing_labels(source, count, class_names or ())
        for source, count in zip(sources, counts, strict=True)
    ]
    if class_names is not None:
        names, origin = tuple(class_names), "class_names"
    else:
        known_counts = [
            {label: n for label, n in count.items() if label not in left_out}
            for count, left_out in zip(counts, missing, strict=True)
        ]
        names, origin = _names_of_data(sources, known_counts)

    if DEFER in names:
        raise DataError(
            f"{DEFER!r} is a class (from {origin}), and the answer of a policy that defers; name"
            " the class otherwise by class_names and label_map"
        )

    given = class_names is not None
    classes = [
        {x: _class_of(x, source, names, given=given, missing=left_out) for x in count}
        for source, count, left_out in zip(sources, counts, missing, strict=True)
    ]

    _refuse_contradictions(sources, classes, names)
    _refuse_unknown(sources, classes, f"{first_of(names)} (from {origin})")
    known = [{label: name for label, name in found.items() if name} for found in classes]
    _refuse_empty(sources, known, names, counts)

    return Labelling(names, origin, known, counts)


def _names_of_data(
    sources: Sequence[Source], counts: Sequence[Mapping[Label, int]]
) -> tuple[tuple[str, ...], str]:
    """Return the classes where none are given, and where they come from in words."""
    maps = [source.label_map or {} for source in sources]
    mapped = {name for label_map in maps for name in label_map.values()} - {EXCLUDE}
    if mapped:
        if mapped <= {*NATIX}:
            return NATIX, "label_map"
        return _in_order_of_maps(maps, mapped), "label_map"

    free = [
        {label for label in count if not {label.text, label.value} & label_map.keys()}
        for count, label_map in zip(counts, maps, strict=True)
    ]
    texts = {label.text for labels in free for label in labels} - {"-1", "", EXCLUDE}
    if texts <= {*NATIX, *_NATIX_MAP}:
        return NATIX, "the default"
    unnamed = [
        {label.value for label in labels if not label.name and not source.named_by_folder}
        for source, labels in zip(sources, free, strict=True)
    ]
    for source, values in zip(sources, unnamed, strict=True):
        _refuse_numbers(source, values - {"-1"})
    if _looks_like_natix(texts, set[str]().union(*unnamed)):
        return NATIX, "the default"  # the other labels are refused

    order = _declared_order(sources, texts)
    if order:
        return order, "the data, in the order of ClassLabel"
    folders = all(source.named_by_folder for source in sources)
    return tuple(sorted(texts, key=_natural)), f"the data's {'folders' if folders else 'labels'}"


def _looks_like_natix(texts: set[str], unnamed: set[str]) -> bool:
    """Return whether labels are NATIX's and others, which may be misspelt.

    "None" alone is not enough: other data may have such a class too. Nor are the numbers of folders
    and of a ClassLabel, which are names.
    """
    if "Roadwork" in texts or unnamed & _NATIX_MAP.keys() - {"-1"}:
        return True
    return "None" in texts and bool(difflib.get_close_matches("Roadwork", texts, cutoff=0.8))


def _refuse_numbers(source: Source, values: set[str]) -> None:
    """Raise DataError where labels are numbers without names.

    Numbers with a gap that begin as NATIX's do are left: there, one may be misspelt.
    """
    numbers = sorted(values, key=_natural)
    if not numbers or not all(map(_is_number, numbers)):
        return
    positions = [str(position) for position in range(len(numbers))]
    if numbers == positions or not values & _NATIX_MAP.keys():
        raise DataError(
            f"{source.tables[0].where}: the labels {first_of(numbers)} are numbers without names;"
            " set class_names to their names in this order from 0, or label_map to number -> name"
        )


def _declared_order(sources: Sequence[Source], names: set[str]) -> tuple[str, ...]:
    """Return the names in the order that all tables declare; () where there is none."""
    orders = {
        tuple(name for name in table.names if name in names)
        for source in sources
        for table in source.tables
    }
    order = orders.pop() if len(orders) == 1 else ()
    return order if set(order) == names else ()


def _in_order_of_maps(maps: Sequence[Mapping[str, str]], names: set[str]) -> tuple[str, ...]:
    """Return classes in the order of the numbers that lead to them, else sorted."""
    keys = [(key, name) for label_map in maps for key, name in label_map.items() if name in names]
    if all(_is_number(key) for key, _ in keys):
        first = {name: float(key) for key, name in sorted(keys, key=lambda k: -float(k[0]))}
        return tuple(sorted(names, key=lambda name: first[name]))
    return tuple(sorted(names, key=_natural))


def _class_of(
    label: Label,
    source: Source,
    class_names: Sequence[str],
    *,
    given: bool,
    missing: Collection[Label],
) -> str | None:
    """Return the label's class or "exclude"; None where it has none.

    The source's map comes first, by the label's name before its number. A label that is a class is
    this class, but for the text None where it may stand for a missing label (`missing`). Without a
    map, 0 and 1 mean NATIX's classes where these are among the classes, else numbers without names
    mean positions in class names that are `given`.
    """
    label_map = source.label_map or {}
    for text in (label.text, label.value):
        if text in label_map:
            return label_map[text]
    if label in missing:
        return None
    if label.text in (*class_names, EXCLUDE):
        return label.text
    if set(label_map.values()) - {EXCLUDE}:
        return None
    if {*NATIX} <= {*class_names} or label.text == "-1":
        return _NATIX_MAP.get(label.text)

    is_number = given and not label.name and label.value.isdecimal()
    position = (
        int(label.value) if is_number and len(label.value) < _MOST_DIGITS else len(class_names)
    )
    return class_names[position] if position < len(class_names) else None


def _missing_labels(
    source: Source, labels: Collection[Label], class_names: Sequence[str]
) -> set[Label]:
    """Return the labels that may be what Python and pandas write for a missing one.

    Folders, names of a ClassLabel and given `class_names` say that they are none. The text None is
    a name too, but not among numbers, nor where a label map names classes: there it is what the map
    says.
    """
    if source.named_by_folder:
        return set()

    is_mapped = bool(set((source.label_map or {}).values()) - {EXCLUDE})
    has_numbers = any(_is_number(label.value) and not label.name for label in labels)
    texts = {*_MISSING} - {*class_names} | ({"None"} if is_mapped or has_numbers else set())
    return {Label(text) for text in texts}


def _refuse_contradictions(
    sources: Sequence[Source],
    classes: Sequence[Mapping[Label, str | None]],
    class_names: Sequence[str],
) -> None:
    """Raise DataError where a map by number contradicts the number's name: one of them is wrong."""
    for source, of_label in zip(sources, classes, strict=True):
        for label, found in sorted(of_label.items()):
            by_number = label.name and label.name not in (source.label_map or {})
            if by_number and label.name in class_names and found not in (label.name, EXCLUDE):
                raise DataError(
                    f"{source.tables[0].where}: label_map says {label.value} is {found!r}, the"
                    f" file's ClassLabel says {label.name!r}; use the names as keys of label_map,"
                    " or remove it"
                )


def _refuse_unknown(
    sources: Sequence[Source], classes: Sequence[Mapping[Label, str | None]], class_names: str
) -> None:
    """Raise DataError that names every label without a class, its rows, and the remedies."""
    unknown = [
        (table, label)
        for source, of_label in zip(sources, classes, strict=True)
        for table in source.tables
        for label in sorted(set(table.labels))
        if of_label[label] is None
    ]
    if unknown:
        # Rows are looked up for those that are named: every row may have a label of its own.
        named = [
            f"{table.where} {_rows(table, label)}: label {shown(label.text)} {_why(label)}"
            for table, label in unknown[:_NAMED_LABELS]
        ]
        others = [label for _, label in unknown[_NAMED_LABELS:]]
        problems = first_of([*named, *others], most=len(named), separator="; ")
        raise DataError(
            f"{problems}; the classes are {class_names}: correct the"
            " label, add it to label_map as one of them or 'exclude', set class_names to all"
            " classes of the data, or name another label_column"
        )


def _why(label: Label) -> str:
    is_missing = label.value in ("None", *_MISSING) and not label.name
    remark = ", and may stand for a missing label" if is_missing else ""
    return f"is in neither label_map nor class_names{remark}"


def _refuse_empty(
    sources: Sequence[Source],
    classes: Sequence[Mapping[Label, str]],
    class_names: Sequence[str],
    counts: Sequence[Mapping[Label, int]],
) -> None:
    """Raise DataError where nothing is left, or a class has no rows."""
    found = {name for of_label in classes for name in of_label.values()} - {EXCLUDE}
    where = first_of(source.tables[0].where for source in sources)
    if not found:
        total = sum(sum(count.values()) for count in counts)
        raise DataError(f"{where}: no rows are left, label_map excludes all {total}")

    missing = [name for name in class_names if name not in found]
    if missing or len(class_names) < 2:
        problem = (
            f"class {first_of(missing)} has no image"
            if missing
            else f"{class_names[0]} is the only class"
        )
        listed = first_of(
            f"{label} -> {name}" for of_label in classes for label, name in sorted(of_label.items())
        )
        raise DataError(
            f"{where}: {problem}; the labels are {listed}: add images, or set class_names or"
            " label_map"
        )


def _rows(table: LabelTable, label: Label) -> str:
    """Return where the label is in words: the first rows by number, or the number of images."""
    rows = [row for row, value in enumerate(table.labels) if value == label]
    if table.numbers is None:
        return f"{len(rows)} image{'s' if len(rows) > 1 else ''}"
    named = first_of((table.numbers[row] for row in rows), most=_NAMED_ROWS)
    return f"{table.unit}{'s' if len(rows) > 1 else ''} {named}"


def _natural(name: str) -> tuple[float, str]:
    """Sort key that puts numbers in their order, before other names."""
    return (float(name) if _is_number(name) else float("inf"), name)


def _is_number(text: str) -> bool:
    """Return whether the text is a decimal number, such as an integer or pandas' 1.0."""
    return re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text) is not None


def need_columns(
    config: SourceConfig, found: Sequence[str], needed: Sequence[str], where: str
) -> None:
    """Raise DataError where a needed column, or one that the user has named, does not exist.

    The default group column may be absent: then every image is its own group. A name given by the
    user must exist, because a misspelt one would silently let a drive cross the splits.
    """
    wanted = [*needed]
    wanted += [config.timestamp_column] if config.timestamp_column else []
    wanted += (
        [config.group_column] if config.group_column not in ("", _DEFAULT_GROUP_COLUMN) else []
    )
    problems = []

    for column in wanted:
        if column not in found:
            close = difflib.get_close_matches(column, found, n=1)
            problems.append(
                f"no column {column!r}" + (f"; did you mean {close[0]!r}?" if close else "")
            )

    if problems:
        raise DataError(f"{where}: {'; '.join(problems)}; columns: {first_of(found) or 'none'}")
