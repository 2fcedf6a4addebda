"""Upload of checkpoints to the store while training goes on.

One thread uploads the newest; one that comes while it is busy waits, and takes the place of an
older one that waits.
"""

import threading
from pathlib import Path

from components.shared.contracts.errors import OvertakenError, StreetVisionError, one_line
from components.shared.training.checkpoint import files as checkpoint_files
from components.shared.training.checkpoint.remote import RemoteCheckpoints

_STOP_SECONDS = 10.0


class CheckpointUploader:
    """Thread that uploads the newest checkpoint.

    `failure`: why the last upload did not succeed, else empty; `overtaken`: why training must end,
    else empty.
    """

    def __init__(self, remote: RemoteCheckpoints) -> None:
        self.failure, self.overtaken = "", ""
        self._remote = remote
        self._changed = threading.Condition()
        self._waiting: Path | None = None
        self._busy: Path | None = None
        threading.Thread(target=self._work, name="uploads", daemon=True).start()

    def offer(self, path: Path) -> None:
        """Upload this checkpoint as soon as possible."""
        with self._changed:
            self._waiting = path
            self._changed.notify_all()

    def held(self) -> set[str]:
        """Return the names of checkpoints that must not be removed yet."""
        with self._changed:
            return {path.name for path in (self._waiting, self._busy) if path is not None}

    def wait(self, seconds: float | None = None) -> None:
        """Wait until nothing is left to upload, at most `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is None and self._busy is None, seconds)

    def stop(self) -> None:
        """Start no further upload, and wait until the present one ends.

        An upload that arrived after the clean-up would stay in the store.
        """
        with self._changed:
            self._waiting = None
        self.wait(_STOP_SECONDS)

    def _work(self) -> None:
        while not self.overtaken:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None)
                self._busy, self._waiting = self._waiting, None

            if self._busy is not None:
                self._upload(self._busy)
            with self._changed:
                self._busy = None
                self._changed.notify_all()

    def _upload(self, path: Path) -> None:
        try:
            self._remote.upload(
                path, keep={kept.name for kept in checkpoint_files.all_of(path.parent)}
            )
            self.failure = ""
        except OvertakenError as error:
            self.overtaken = str(error)
        except (StreetVisionError, OSError) as error:
            self.failure = (
                f"checkpoint {path.name} cannot be stored at {self._remote.location}:"
                f" {one_line(error)}"
            )
