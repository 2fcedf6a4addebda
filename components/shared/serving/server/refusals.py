"""Refusals of requests: what a client is told, with the codes of HTTP and of gRPC."""

from enum import Enum

import grpc

NOT_LOADED = "models are not loaded by requests; start another server, or use --follow"


class Reason(Enum):
    """Why a request is refused: the label of the metric, the status of HTTP, the code of gRPC."""

    MALFORMED = ("malformed", 400, grpc.StatusCode.INVALID_ARGUMENT)
    NOT_AN_IMAGE = ("not_an_image", 400, grpc.StatusCode.INVALID_ARGUMENT)
    UNKNOWN = ("unknown", 404, grpc.StatusCode.NOT_FOUND)
    SLOW_CLIENT = ("slow_client", 408, grpc.StatusCode.DEADLINE_EXCEEDED)
    TOO_LARGE = ("too_large", 413, grpc.StatusCode.INVALID_ARGUMENT)
    CONTENT_TYPE = ("content_type", 415, grpc.StatusCode.INVALID_ARGUMENT)
    BUSY = ("busy", 503, grpc.StatusCode.UNAVAILABLE)
    TIMEOUT = ("timeout", 503, grpc.StatusCode.DEADLINE_EXCEEDED)

    def __init__(self, label: str, status: int, code: grpc.StatusCode) -> None:
        self.label, self.status, self.code = label, status, code


class RefusedError(Exception):
    """The request gets no answer; the message says why, on one line.

    reason: its kind. retry_after: whole seconds after which it may be sent again; None where the
    same request is refused again.
    """

    def __init__(self, reason: Reason, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.reason, self.retry_after = reason, retry_after
