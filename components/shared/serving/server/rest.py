"""The server's HTTP: POST /predict, the routes of the protocol v2, and /metrics."""

import hashlib
import json
import sys
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import REGISTRY, exposition
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

from components.shared.contracts.errors import one_line
from components.shared.contracts.listing import shown
from components.shared.serving.server import metrics
from components.shared.serving.server.bodies import App, Bodies
from components.shared.serving.server.deployment import Deployment
from components.shared.serving.server.model import BundlePlane
from components.shared.serving.server.refusals import NOT_LOADED, Reason, RefusedError
from components.shared.serving.server.sdk import (
    InferenceError,
    InvalidInput,
    ModelNotFound,
    ServerNotReady,
    register_v2_endpoints,
)

_MULTIPART, _OCTETS = "multipart/form-data", "application/octet-stream"


def application(deployment: Deployment, plane: BundlePlane) -> App:
    """Return the ASGI application."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    # Before those of KServe, which has routes to load and unload models.
    app.add_route("/v2/repository/{rest:path}", _no_repository, methods=["GET", "POST"])
    register_v2_endpoints(app, plane, None)

    async def predict(request: Request) -> Response:
        name, image = await _image_of(request)
        result = (await deployment.results([image]))[0]
        return _json({"image": name} | result.line)

    app.add_route("/predict", predict, methods=["POST"])
    app.add_route("/metrics", _metrics)
    _handle_errors(app)

    return Bodies(app, deployment)


def _json(document: dict[str, Any], status: int = 200, headers: Any = None) -> Response:
    content = json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"
    return Response(content, status, headers, "application/json")


async def _no_repository(_: Request) -> Response:
    """Refuse: models are loaded by whoever starts the server, never by who asks it."""
    raise RefusedError(Reason.UNKNOWN, NOT_LOADED)


async def _metrics(request: Request) -> Response:
    encoder, content_type = exposition.choose_encoder(request.headers.get("accept", ""))
    return Response(encoder(REGISTRY), headers={"content-type": content_type})


async def _image_of(request: Request) -> tuple[str, bytes]:
    """Return name and bytes of the one image of a request.

    The name is that of the file in a form, otherwise the image's sample_id, as a data set has it.
    Raises RefusedError for another content type, or another number of files.
    """
    given = request.headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    if kind == _MULTIPART:
        return await _file_of(request)
    if kind != _OCTETS and not kind.startswith("image/"):
        raise RefusedError(
            Reason.CONTENT_TYPE,
            f"content-type={shown(given)} must be image/..., {_OCTETS} or {_MULTIPART}",
        )

    image = await request.body()
    return hashlib.sha256(image).hexdigest()[:16], image


class _InMemory(MultiPartParser):
    """The parser of forms that writes no file: a body is small, as `Bodies` has checked."""

    spool_max_size = sys.maxsize


async def _file_of(request: Request) -> tuple[str, bytes]:
    try:
        form = await _InMemory(
            request.headers, request.stream(), max_files=1, max_fields=16
        ).parse()
    except MultiPartException as error:
        raise RefusedError(Reason.MALFORMED, f"form: {error.message}") from error
    except (ValueError, KeyError, LookupError) as error:  # of python-multipart
        raise RefusedError(Reason.MALFORMED, f"form: {one_line(error)}") from error

    files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
    if len(files) != 1:
        raise RefusedError(
            Reason.MALFORMED, f"the form has {len(files)} files, must be one: -F image=@photo.jpg"
        )
    with files[0].file as file:
        return files[0].filename or "", file.read()


def _handle_errors(app: FastAPI) -> None:
    """Answer each error with a line of JSON; only what is nobody's fault but ours is a 5xx."""

    def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)
        return _refusal(error)

    def malformed(_: Request, error: Exception) -> Response:
        return _refusal(RefusedError(Reason.MALFORMED, one_line(error)))

    def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return _refusal(RefusedError(Reason.MALFORMED, f"{where}: {one_line(first['msg'])}"))

    def unknown(_: Request, error: Exception) -> Response:
        return _refusal(RefusedError(Reason.UNKNOWN, one_line(error)))

    def routed(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        metrics.REJECTED.labels(Reason.UNKNOWN.label).inc()
        return _json({"error": error.detail}, error.status_code, error.headers)

    def ending(_: Request, error: Exception) -> Response:
        return _json({"error": one_line(error)}, 503)

    def ours(_: Request, error: Exception) -> Response:  # uvicorn prints the traceback
        return _json({"error": f"{type(error).__name__}: {one_line(error)}"}, 500)

    for kind, handler in (
        (RefusedError, refused),
        (InvalidInput, malformed),
        (InferenceError, malformed),
        (RequestValidationError, invalid),
        (ModelNotFound, unknown),
        (NotImplementedError, unknown),  # a version of the model
        (ServerNotReady, ending),
        (HTTPException, routed),
        (Exception, ours),
    ):
        app.add_exception_handler(kind, handler)


def _refusal(error: RefusedError) -> Response:
    metrics.REJECTED.labels(error.reason.label).inc()
    wait = error.retry_after
    headers = None if wait is None else {"retry-after": str(wait)}
    return _json({"error": str(error)}, error.reason.status, headers)
