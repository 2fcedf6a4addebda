"""Checks of the folder of runs, before anything is made."""

import os
from collections.abc import Sequence
from pathlib import Path

from components.shared.contracts.errors import ConfigError
from pipelines.parameters import is_utf8


def check_output(output: Path, sources: Sequence[str] = ()) -> None:
    """Refuse a folder of runs that cannot be one.

    Args:
        output: The folder; what is missing of it will be made.
        sources: Where the run's images are: folders, files, or s3:// addresses.

    Raises:
        ConfigError: it is no folder, may not be written, has a name that is not UTF-8, or is inside
            one of the sources, whose listing would then change with every run, so that nothing
            would come from the cache.
    """
    place = output.absolute()
    try:
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise ConfigError(f"--output {str(output)!r}: {place} is not a folder")
        if not os.access(place, os.W_OK | os.X_OK):
            raise ConfigError(f"--output {str(output)!r}: {place} may not be written")
        resolved = output.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # too long, circular links
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"--output {str(output)!r}: {reason}") from None

    if not is_utf8(str(resolved)):
        raise ConfigError(
            f"--output {str(output)!r} is not UTF-8, as KFP's paths are; choose another folder, or"
            " set PYTHONUTF8=1 where the terminal is not UTF-8"
        )

    for source in sources:
        if not source.startswith("s3://") and resolved.is_relative_to(Path(source).resolve()):
            raise ConfigError(
                f"--output {str(output)!r} is inside the data {source!r}, which would change with"
                " every run; choose a folder outside"
            )
