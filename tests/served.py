"""A server of a test, in a thread of its own."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer


@contextlib.contextmanager
def served(server: ThreadingHTTPServer, stopping: threading.Event, poll: float) -> Iterator[None]:
    """Answer requests in a thread; at the end `stopping` is set, and the thread has ended."""
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": poll}, daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        server.shutdown()
        thread.join()
