"""Following of the registry: a new champion is loaded beside the old one and takes its place."""

import asyncio
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from components.shared.contracts.errors import PermanentError, one_line
from components.shared.serving.server import metrics
from components.shared.serving.server.deployment import Deployment, Loaded
from components.shared.storage.registry import BundleRegistry


class Follower:
    """Asks a registry for its champion, and serves a new one."""

    def __init__(
        self,
        registry: BundleRegistry,
        deployment: Deployment,
        load: Callable[[BundleRegistry, str], Loaded],
        poll_seconds: float,
    ) -> None:
        """Take what is followed, and what loads the bundle of a digest."""
        self._registry, self._deployment, self._load = registry, deployment, load
        self._poll_seconds = poll_seconds
        self._refused = ""  # a digest that cannot be served; it is not loaded again

    async def run(self) -> None:
        """Follow until the task is cancelled; whatever fails, the current bundle goes on."""
        loop = asyncio.get_running_loop()
        # Of its own, so that loading never waits for requests, nor they for it.
        with ThreadPoolExecutor(1, "follow") as thread:
            while True:
                await asyncio.sleep(self._poll_seconds)
                current = self._deployment.current.digest
                loaded = await loop.run_in_executor(thread, self.newer, current)
                if loaded is not None:
                    self._deployment.swap(loaded)
                    metrics.SWAPS.labels("done").inc()

    def newer(self, current: str) -> Loaded | None:
        """Return the champion where it is another bundle than `current`, else None."""
        started, digest = time.monotonic(), ""
        try:
            champion = self._registry.champion()
            if champion is None or champion.digest in (current, self._refused):
                return None
            digest = champion.digest
            loaded = self._load(self._registry, digest)
        except Exception as error:  # of the store, the network or the bundle: try again later
            if digest and isinstance(error, PermanentError):
                self._refused = digest
            metrics.SWAPS.labels("failed").inc()
            _say(f"{digest[:12] or self._registry.uri} is not served: {one_line(error)}")
            return None

        _say(f"{digest[:12]} is served, loaded in {time.monotonic() - started:.1f} s")
        return loaded


def _say(text: str) -> None:
    print(f"champion: {text}", file=sys.stderr, flush=True)  # noqa: T201
