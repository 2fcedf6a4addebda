"""What killed runs have left in the folder of runs: staging and working folders, halves of files.

A run whose processes are alive keeps everything; artifacts and checkpoints always stay.
`python -m pipelines.local.leftovers FOLDER` is what `make clean-runs` does.
"""

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pipelines.local.cache import cache_folder
from pipelines.names import PIPELINES
from pipelines.ownership import inheriting

# Beside the outputs of a step, as contracts.artifacts names them.
_STAGING = (".*.partial", ".*.replaced", ".*.work", "*.json.tmp")
# Entries of the cache as kfp writes them, within milliseconds.
_HALF_ENTRY, _HALF_ENTRY_SECONDS = ".kfp_cache_*.tmp", 3600.0


def remove_leftovers(output: Path) -> list[Path]:
    """Remove what killed runs have left below `output`; return what is removed."""
    removed = []
    for run in sorted(run for name in PIPELINES.values() for run in output.glob(f"{name}-*")):
        with inheriting(run) as is_left:
            for found in _staging(run) if is_left else ():
                _remove(found)
                removed.append(found)

    now = time.time()
    for entry in cache_folder(output).glob(_HALF_ENTRY):
        if now - entry.stat().st_mtime > _HALF_ENTRY_SECONDS:
            _remove(entry)
            removed.append(entry)

    return removed


def _staging(run: Path) -> Iterator[Path]:
    for pattern in _STAGING:
        yield from sorted(run.glob(f"*/{pattern}"))


def _remove(found: Path) -> None:
    if found.is_dir() and not found.is_symlink():
        shutil.rmtree(found, ignore_errors=True)
    else:
        found.unlink(missing_ok=True)


if __name__ == "__main__":
    for path in remove_leftovers(Path(sys.argv[1])):
        print(f"removed {path}")
