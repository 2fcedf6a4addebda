"""Limits of the server: what a request may cost, and what the server may hold at a time."""

from dataclasses import dataclass

MIB = 1 << 20
# Of the bodies of all requests at a time, in bodies of the largest size.
_BODIES_HELD = 16
N_DECODERS = 2  # threads: Pillow releases the interpreter while it decodes
MOST_CONNECTIONS = 1000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits with their defaults.

    Attributes:
        body_bytes: of one request.
        pixels: width times height of an image, checked before a pixel is decoded.
        queued_images: accepted and not yet answered, of all requests; above it 503.
        batch_images: that the model computes at once; on a CPU more take memory and no less time.
        batch_wait_seconds: for which a batch waits for images that are being decoded.
        request_seconds: from the last byte of a request to its answer.
        client_seconds: for which a client may take to send a request's headers, and its body.
        shutdown_seconds: for which SIGTERM waits for the answers to accepted requests.
    """

    body_bytes: int = 16 * MIB
    pixels: int = 50_000_000
    queued_images: int = 64
    batch_images: int = 4
    batch_wait_seconds: float = 0.005
    request_seconds: float = 30.0
    client_seconds: float = 20.0
    shutdown_seconds: float = 30.0

    @property
    def held_bytes(self) -> int:
        """Bytes of the bodies of all requests at a time; above it 503."""
        return _BODIES_HELD * self.body_bytes
