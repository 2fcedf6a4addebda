"""Space on the disk: reserved before it is used, and one error where there is none."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from components.shared.contracts.disk import full_disk, reserve
from tests.small_disk import small_disk


@pytest.mark.parametrize("supported", [True, False])
def test_a_hole_gets_its_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    if not supported:
        monkeypatch.delattr(os, "posix_fallocate")  # as on macOS
    file = tmp_path / "a"
    with file.open("wb") as stream:
        stream.write(b"begin")
        stream.truncate(5 << 20)
    assert file.stat().st_blocks * 512 < 1 << 20

    reserve(file)
    assert file.stat().st_blocks * 512 >= 5 << 20
    assert file.read_bytes() == b"begin" + bytes((5 << 20) - 5)


@pytest.mark.parametrize("answer", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSPC])
def test_a_file_system_that_cannot_reserve_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    """A stand-in for file systems in user space and on the network, which answer so."""

    def refuse(*_: int) -> None:
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    file = tmp_path / "a"
    with file.open("wb") as stream:
        stream.truncate(1 << 20)
    if answer == errno.ENOSPC:
        with pytest.raises(OSError, match=f"No space left on device: '{file}'"):
            reserve(file)
    else:
        reserve(file)
        assert file.stat().st_blocks * 512 >= 1 << 20


def test_every_librarys_error_on_a_full_disk_is_known() -> None:
    with small_disk(1 << 20) as disk:
        failing = [
            lambda: np.save(disk / "a.npy", np.zeros(1_000_000)),
            lambda: save_file({"a": torch.zeros(1_000_000)}, disk / "a.safetensors"),
            lambda: (disk / "a").write_bytes(bytes(2 << 20)),
            lambda: os.truncate(disk / "a", 5 << 20) or reserve(disk / "a"),
        ]
        for write in failing:
            with pytest.raises(Exception, match=r"space|written") as caught:
                write()
            assert full_disk(caught.value), caught.value
            for file in disk.glob("*.*"):
                file.unlink()

    assert not full_disk(OSError(errno.EACCES, "Permission denied"))
    assert not full_disk(ValueError("No space left on device"))
