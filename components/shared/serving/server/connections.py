"""Connections over HTTP that a client may not hold open without sending a request."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_REASON = b'{"error": "the headers took too long to come"}'
_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_REASON), _REASON)
)
# uvicorn closes idle connections between requests, but waits for ever for the rest of the headers.
# h11 bounds their size, which the faster parser does not.


def patient_for(seconds: float) -> type[H11Protocol]:
    """Return uvicorn's protocol that closes a connection whose headers take longer."""

    class _Protocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _wait(self) -> None:
            """Run the timer exactly while a request is awaited or its headers are incomplete."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()
            elif self._timer is None:
                self._timer = self.loop.call_later(seconds, self._close)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _close(self) -> None:
            self._timer = None
            if self.transport.is_closing():
                return
            if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
                self.transport.write(_TOO_SLOW)
            self.transport.close()

    return _Protocol
