"""Files of a user that are no ordinary files: each gives a reason in words, at once."""

import os
import resource
import socket
from pathlib import Path

import pytest

from components.shared.contracts.regular_files import check_regular, read_regular
from tests.hostile_files import HOSTILE, without_root_rights


def test_a_regular_file_is_read_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("a")
    assert read_regular(tmp_path / "a") == b"abc"
    assert read_regular(tmp_path / "link", most_bytes=3) == b"abc"
    check_regular(tmp_path / "a")


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_hostile_files_give_a_reason(tmp_path: Path, kind: str) -> None:
    make, reason = HOSTILE[kind]
    file = make(tmp_path / "0.jpg")
    with pytest.raises(OSError, match=reason) as caught:
        read_regular(file)
    assert caught.value.strerror
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 8 << 20  # KiB


def test_a_socket_and_a_name_with_a_null_give_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        with pytest.raises(OSError, match=r"not a regular file \(a socket\)"):
            read_regular(Path("s"))
    with pytest.raises(OSError, match="not a file name"):
        read_regular(Path("a\0b"))


def test_a_file_that_may_not_be_read_gives_a_reason(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "a").chmod(0)
    with without_root_rights(), pytest.raises(PermissionError):
        read_regular(tmp_path / "a")


def test_a_pipe_that_takes_the_place_of_the_file_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look before the opening is skipped, as if the pipe came between the two."""
    os.mkfifo(tmp_path / "f")
    monkeypatch.setattr(
        "components.shared.contracts.regular_files.check_regular", lambda file, most_bytes: None
    )
    with pytest.raises(OSError, match=r"not a regular file \(a pipe\)"):
        read_regular(tmp_path / "f")
