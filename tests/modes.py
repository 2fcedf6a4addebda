"""Permissions of the files of an artifact."""

from pathlib import Path


def modes(directory: Path) -> dict[str, str]:
    """Return relative path -> octal mode, of the directory and everything below it."""
    entries = [directory, *sorted(directory.rglob("*"))]
    return {
        entry.relative_to(directory).as_posix(): f"{entry.stat().st_mode & 0o777:o}"
        for entry in entries
    }
