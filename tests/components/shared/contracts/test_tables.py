"""Tables of artifacts: every text comes back, hostile bytes give one typed error."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from components.shared.contracts import tables
from components.shared.contracts.errors import ArtifactError, DataError
from components.shared.contracts.tables import (
    integer,
    number,
    numbered_rows,
    parse_table,
    read_table,
    table_bytes,
    write_table,
)

COLUMNS = ["sample_id", "note"]
TEXTS = [
    *("", " ", "plain", "a,b", 'a "b"', '"', "a\nb", "a\rb", "a\r\nb", "\r", "\n", "\n\r", "a\0b"),
    *(
        "\u2028",
        "\x85",
        "\x1b[31m",
        "=1+1",
        "ünï😀",
        "\ufeff",
        "\\",
        "'",
        "x" * 200_000,
        "x" * (1 << 20),
    ),
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:12]))
def test_every_text_comes_back(tmp_path: Path, text: str) -> None:
    file = tmp_path / "samples.csv"
    write_table(file, COLUMNS, [[text, "x"], ["b", text]])

    assert [list(row.values()) for row in read_table(file, COLUMNS)] == [[text, "x"], ["b", text]]
    assert file.read_bytes() == table_bytes(COLUMNS, [[text, "x"], ["b", text]], "samples.csv")


def test_the_bytes_of_ordinary_tables_are_those_of_pythons_writer(tmp_path: Path) -> None:
    rows: list[list[Any]] = [["a", 1, 0.1, None, ""], ['q"', -2, 1e-9, "x, y", "two\nlines"]]
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerows([["a", "b", "c", "d", "e"], *rows])

    for for_people in (False, True):
        if for_people:
            rows[1][4] = ""
            stream = io.StringIO(newline="")
            csv.writer(stream, lineterminator="\n").writerows([["a", "b", "c", "d", "e"], *rows])
        write_table(tmp_path / "t.csv", ["a", "b", "c", "d", "e"], rows, for_people=for_people)
        assert (tmp_path / "t.csv").read_bytes() == stream.getvalue().encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=cmd|'/c calc'!A0", "'=cmd|'/c calc'!A0"),
        ("+1 555", "'+1 555"),
        ("-x", "'-x"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-0.5", "-0.5"),
        ("+1e-3", "+1e-3"),
        ("a=b", "a=b"),
        ("\x1b]0;pwned\x07", r"\x1b]0;pwned\x07"),
        ("x\n22:00 - INFO", r"x\n22:00 - INFO"),
        ("\t=1", r"\t=1"),
        ("\udcff.jpg", r"\udcff.jpg"),
        ("\u202egpj", r"\u202egpj"),
        ("x" * 40_000, "x" * 32_767),
    ],
)
def test_tables_for_people_have_no_formulas_and_no_control_characters(
    tmp_path: Path, text: str, shown: str
) -> None:
    file = tmp_path / "rejects.csv"
    write_table(file, ["path", text], [[text, 1]], for_people=True)

    (row,) = read_table(file, ["path"])
    assert row == {"path": shown, shown: "1"}


def test_what_cannot_be_read_is_not_written(tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(ArtifactError, match=r"t.csv: a field has 1048577 characters, at most"):
        write_table(tmp_path / "t.csv", COLUMNS, [["a", "x" * (1 << 20) + "x"]])
    with pytest.raises(ArtifactError, match=r"t.csv: .*udcff.* is no valid Unicode"):
        write_table(tmp_path / "t.csv", COLUMNS, [["a", "\udcff"]])

    monkeypatch.setattr(tables, "MOST_ROW", 100)
    with pytest.raises(ArtifactError, match="a row has more than 100 characters"):
        write_table(tmp_path / "t.csv", COLUMNS, [["x" * 60, "x" * 60]])


def test_a_table_that_reads_otherwise_than_it_was_written_is_refused(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """The stand-in is the writer of Python 3.11 itself, which leaves a carriage return bare."""
    writer = csv.writer
    monkeypatch.setattr(
        csv, "writer", lambda stream, lineterminator: writer(stream, lineterminator="\n")
    )
    with pytest.raises(ArtifactError, match=r"samples.csv: reads otherwise than it was written"):
        write_table(tmp_path / "samples.csv", COLUMNS, [["a\rb", "1"]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no column sample_id, note"),
        (b"\n", "no column sample_id, note"),
        (b"sample_id\na\n", "no column note"),
        (b"sample_id,note,note\na,b,c\n", "a column occurs twice"),
        (b"sample_id,note\na\n", "line 2 has 1 fields, expected 2"),
        (b"sample_id,note\na,b\n\n", "line 3 has 0 fields"),
        (b'sample_id,note\n"a\n\n",b\nc\n', "line 5 has 1 fields"),
        (b'sample_id,note\n"a,b\n', "not a valid CSV .line 2"),
        (b'sample_id,note\n"a"b,c\n', "not a valid CSV .line 2"),
        (b"sample_id,note\na,\xff\n", "not UTF-8"),
        (b"sample_id,note\na," + b"x" * 1_100_000 + b"\n", "not a valid CSV .line 2: field larger"),
        (b"PAR1\0\0", "no column"),
    ],
)
def test_malformed_tables_give_one_typed_error(tmp_path: Path, data: bytes, message: str) -> None:
    file = tmp_path / "samples.csv"
    file.write_bytes(data)
    with pytest.raises(ArtifactError, match=message) as caught:
        list(read_table(file, COLUMNS))
    assert len(str(caught.value)) < 500

    with pytest.raises(ArtifactError, match=message):
        list(parse_table(io.BytesIO(data), "table", COLUMNS))


def test_memory_is_bounded_by_row_and_table(tmp_path: Path, monkeypatch: Any) -> None:
    many = b"sample_id,note\n" + b'"\n",' * 1000
    monkeypatch.setattr(tables, "MOST_ROW", 1000)
    with pytest.raises(ArtifactError, match="a row has more than 1000 characters"):
        list(parse_table(io.BytesIO(many), "table", COLUMNS))
    with pytest.raises(ArtifactError, match="a row has more than 1000 characters"):
        list(parse_table(io.BytesIO(b"," * 10_000), "table", COLUMNS))

    monkeypatch.setattr(tables, "MOST_BYTES", 1000)
    with pytest.raises(ArtifactError, match="more than 1000 bytes"):
        list(parse_table(io.BytesIO(many), "table", COLUMNS))


def test_a_table_that_is_not_there_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"splits.csv: cannot be read .No such file"):
        list(read_table(tmp_path / "splits.csv", COLUMNS))


def test_rows_have_the_number_of_the_line_on_which_they_begin() -> None:
    data = b'\xef\xbb\xbfpath,label\n\n"a\nb",0\r\nc,1\rd,0'
    rows = list(numbered_rows(io.BytesIO(data), "labels.csv", error=DataError))

    assert rows == [
        (1, ["path", "label"]),
        (2, []),
        (3, ["a\nb", "0"]),
        (5, ["c", "1"]),
        (6, ["d", "0"]),
    ]
    with pytest.raises(DataError, match=r"labels.csv: not UTF-8"):
        list(numbered_rows(io.BytesIO(b"\xff"), "labels.csv", error=DataError))


def test_integers_are_plain_and_bounded() -> None:
    assert [integer(text, "t") for text in ("0", "-1", "17")] == [0, -1, 17]
    for text in ("", "-", "1.0", " 1", "1_0", "\u0661", "0x1", "9" * 5000, "nan", "+1"):
        with pytest.raises(ArtifactError, match=r"samples.csv: .* is not an integer") as caught:
            integer(text, "samples.csv")
        assert len(str(caught.value)) < 300


def test_numbers_are_finite_and_bounded() -> None:
    assert [number(text, "t") for text in ("", "0", "-1.5", "1e3")] == [None, 0.0, -1.5, 1000.0]
    for text in ("nan", "inf", "1e999", "dark", "1_0", "9" * 5000):
        with pytest.raises(ArtifactError, match=r"samples.csv: .* is not a number") as caught:
            number(text, "samples.csv")
        assert len(str(caught.value)) < 300
