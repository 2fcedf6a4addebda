"""Reading of what uv resolved, and what becomes of it."""

from pathlib import Path

from locks import compile as module
from locks.compile import Pin, read_pins

A, B, C = (f"sha256:{digit * 64}" for digit in "abc")
RESOLVED = f"""\
--only-binary :all:

idna==3.20 \\
    --hash={B} \\
    --hash={A}
    # via requests
kaleido==1.0 ; sys_platform == 'win32' \\
    --hash={A}
    # via
    #   -c constraints.txt
    #   -r requirements.txt
tzdata==2026.6 ; python_full_version >= '3.11' \\
    --hash={A}
    # via
    #   -c constraints.txt
    #   -r requirements.txt
    #   arrow
"""


def test_names_markers_hashes_and_sources_are_read(tmp_path: Path) -> None:
    file = tmp_path / "resolved"
    file.write_text(RESOLVED)
    idna, kaleido, tzdata = read_pins(file)
    assert idna == Pin("idna", "3.20", "", (B, A), ("requests",))
    assert kaleido.marker == "sys_platform == 'win32'"
    assert tzdata.via == ("-c constraints.txt", "-r requirements.txt", "arrow")


def test_other_platforms_are_dropped_and_accepted_builds_added(tmp_path: Path) -> None:
    file = tmp_path / "resolved"
    file.write_text(RESOLVED)
    idna, kaleido, tzdata = read_pins(file)
    assert not any(module._applies(kaleido))
    assert module._cleaned(idna, {("idna", "3.20"): (C,)}).hashes == (A, B, C)
    assert module._cleaned(idna, {("idna", "3.19"): (C,)}).hashes == (A, B)
    cleaned = module._cleaned(tzdata, {})
    assert (cleaned.marker, cleaned.via) == ("", ("-r requirements.txt", "arrow"))


def test_a_lock_reads_back_as_it_was_written(tmp_path: Path) -> None:
    pins = [
        Pin("a", "1", "sys_platform == 'linux'", (A, B), ("-r requirements.txt", "b")),
        Pin("b.c", "2.0.post1", "", (C,), ("a",)),
    ]
    file = tmp_path / "lock.txt"
    file.write_text("".join(map(str, pins)))
    assert read_pins(file) == pins
