"""The server's gRPC: KServe's service, with our codes for what is refused."""

import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from components.shared.contracts.errors import one_line
from components.shared.serving.server import metrics
from components.shared.serving.server.deployment import Deployment
from components.shared.serving.server.limits import MOST_CONNECTIONS
from components.shared.serving.server.model import BundlePlane
from components.shared.serving.server.refusals import NOT_LOADED, Reason, RefusedError
from components.shared.serving.server.sdk import (
    InferenceError,
    InferenceServicer,
    InvalidInput,
    ModelNotFound,
    add_service,
)

_ENDPOINT = "grpc"
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_NOT_SERVED = "RepositoryModel"


def rpc_server(deployment: Deployment, plane: BundlePlane) -> aio.Server:
    """Return the server, without a port yet."""
    server = aio.server(
        interceptors=[_Refusals(deployment)],
        maximum_concurrent_rpcs=MOST_CONNECTIONS,
        options=[
            ("grpc.max_receive_message_length", deployment.limits.body_bytes),
            ("grpc.so_reuseport", 0),  # a second server on the port is an error
        ],
    )
    add_service(InferenceServicer(plane, None), server)
    return server


class _Refusals(aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Refuses what is malformed by a code of its own; grpc would call it an internal error."""

    def __init__(self, deployment: Deployment) -> None:
        self._admission = deployment.admission

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler

        async def answer(data: bytes, context: aio.ServicerContext) -> Any:
            started, n_bytes = time.monotonic(), 0
            code = grpc.StatusCode.OK
            try:
                self._admission.hold(len(data))
                n_bytes = len(data)
                return await _answered(handler, details.method, data, context)
            except Exception as error:
                refusal = _refusal(error)
                code = refusal.reason.code if refusal else grpc.StatusCode.INTERNAL
                await _abort(context, refusal, error)
            finally:
                self._admission.let_go(n_bytes)
                if details.method == _INFER:
                    metrics.REQUESTS.labels(_ENDPOINT, code.name).inc()
                    if code is grpc.StatusCode.OK:
                        metrics.LATENCY.labels(_ENDPOINT).observe(time.monotonic() - started)

        return grpc.unary_unary_rpc_method_handler(
            answer, response_serializer=handler.response_serializer
        )


async def _answered(handler: Any, method: str, data: bytes, context: aio.ServicerContext) -> Any:
    if method.rpartition("/")[2].startswith(_NOT_SERVED):
        raise RefusedError(Reason.UNKNOWN, NOT_LOADED)
    try:
        request = handler.request_deserializer(data)
    except DecodeError as error:
        raise RefusedError(Reason.MALFORMED, f"protobuf: {one_line(error)}") from error
    return await handler.unary_unary(request, context)


def _refusal(error: Exception) -> RefusedError | None:
    """Return the refusal that an error stands for; None for one of ours."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, InvalidInput | InferenceError):
        return RefusedError(Reason.MALFORMED, one_line(error))
    if isinstance(error, ModelNotFound):
        return RefusedError(Reason.UNKNOWN, one_line(error))
    return None


async def _abort(
    context: aio.ServicerContext, refusal: RefusedError | None, error: Exception
) -> None:
    """End the call with its code, and when to try again."""
    if refusal is None:
        traceback.print_exception(error)
        await context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {one_line(error)}")
        return

    metrics.REJECTED.labels(refusal.reason.label).inc()
    wait = refusal.retry_after
    metadata = () if wait is None else (("retry-after", str(wait)),)
    await context.abort(refusal.reason.code, str(refusal), metadata)
