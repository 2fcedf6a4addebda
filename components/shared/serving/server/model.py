"""The bundle as a model of KServe, and the data plane that refuses what is malformed."""

import base64
import binascii
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from components.shared.contracts.documents import parse_json
from components.shared.contracts.errors import ArtifactError, one_line
from components.shared.contracts.listing import shown
from components.shared.serving.server.batching import Pixels
from components.shared.serving.server.deployment import Deployment, Result
from components.shared.serving.server.refusals import Reason, RefusedError
from components.shared.serving.server.sdk import (
    DataPlane,
    InferenceRequest,
    InferInput,
    InferOutput,
    InferRequest,
    InferResponse,
    Model,
    ModelRepository,
    RequestedOutput,
)

INPUT = "images"
DECISION, PROBABILITY, ANSWER = "decision", "probability", "answer"
_JSON_LENGTH = "inference-header-content-length"
_OUTPUTS = {DECISION: "INT64", PROBABILITY: "FP32", ANSWER: "BYTES"}


class BundleModel(Model):  # type: ignore[misc]  # kserve has no types
    """The deployment under one name.

    The input `images` is UINT8 of shape (N, S, S, 3), or BYTES of shape (N): encoded images, in
    base64 where they stand in JSON. The outputs have shape (N): `decision`, INT64 codes (of K
    outcomes k, K to defer, K + 1 for several); `probability`, FP32; `answer`, BYTES, the line of
    JSON that `predict` prints.
    """

    def __init__(self, name: str, deployment: Deployment) -> None:
        """Take the deployment that answers."""
        super().__init__(name)
        self._deployment = deployment
        self.ready = True

    def get_input_types(self) -> list[dict[str, Any]]:
        """Return name, type and shape of the input, for the metadata."""
        size = self._deployment.current.image_size
        return [{"name": INPUT, "datatype": "UINT8", "shape": [-1, size, size, 3]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Return names, types and shapes of the outputs, for the metadata."""
        return [{"name": name, "datatype": of, "shape": [-1]} for name, of in _OUTPUTS.items()]

    async def preprocess(
        self,
        payload: InferRequest,
        headers: dict[str, str] | None = None,  # noqa: ARG002  # KServe's interface
    ) -> InferRequest:
        """Return the request as it is: `predict` reads it."""
        return payload

    async def predict(
        self,
        payload: InferRequest,
        headers: dict[str, str] | None = None,  # noqa: ARG002  # KServe's interface
    ) -> InferResponse:
        """Answer the images of a request. Raises RefusedError."""
        images = images_of(payload, self._deployment.current.image_size)
        _check_outputs(payload)
        results = await self._deployment.results(images)
        return _response(payload, self.name, results)


def images_of(request: InferRequest, image_size: int) -> list[bytes] | list[Pixels]:
    """Return the images of a request: encoded, or (S, S, 3) uint8.

    Raises RefusedError where the input has another name, type, shape or content than `BundleModel`
    says.
    """
    if [tensor.name for tensor in request.inputs] != [INPUT]:
        found = shown([tensor.name for tensor in request.inputs])
        raise RefusedError(Reason.MALFORMED, f"inputs={found}, must be one, named {INPUT!r}")

    tensor = request.inputs[0]
    if tensor.datatype == "UINT8":
        return list(_pixels(tensor, image_size))
    if tensor.datatype == "BYTES":
        return _encoded(tensor)
    raise RefusedError(
        Reason.MALFORMED,
        f"{INPUT} has datatype {shown(tensor.datatype)}, must be UINT8 or BYTES",
    )


def _pixels(tensor: InferInput, image_size: int) -> Pixels:
    shape = list(tensor.shape)
    if len(shape) != 4 or shape[0] < 1 or shape[1:] != [image_size, image_size, 3]:
        raise RefusedError(
            Reason.MALFORMED,
            f"{INPUT} has shape {shown(shape)}, must be [N, {image_size}, {image_size}, 3]",
        )

    try:
        values = np.asarray(tensor.data) if tensor.data else tensor.as_numpy()
        if values.size != math.prod(shape):
            raise ValueError(f"{values.size} values for shape {shape}")
        values = values.reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise RefusedError(Reason.MALFORMED, f"{INPUT}: {one_line(error)}") from error
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
        raise RefusedError(Reason.MALFORMED, f"{INPUT} must be whole numbers of 0 to 255")

    return values.astype(np.uint8, copy=False)


def _encoded(tensor: InferInput) -> list[bytes]:
    """Return the elements of a BYTES tensor. Text is base64."""
    shape = list(tensor.shape)
    if not shape or min(shape) < 1 or math.prod(shape) != shape[0]:
        raise RefusedError(Reason.MALFORMED, f"{INPUT} has shape {shown(shape)}, must be [N]")

    try:
        elements = list(tensor.data) if tensor.data else list(tensor.as_numpy().reshape(-1))
        if len(elements) != shape[0]:
            raise ValueError(f"{len(elements)} elements for shape {shape}")
        return [_bytes(element) for element in elements]
    except Exception as error:  # kserve's reader raises struct's errors, and others
        raise RefusedError(Reason.MALFORMED, f"{INPUT}: {one_line(error)}") from error


def _bytes(element: object) -> bytes:
    if isinstance(element, bytes):
        return element
    if not isinstance(element, str):
        raise TypeError("an element of BYTES in JSON must be a text in base64")
    try:
        return base64.b64decode(element, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"an element of BYTES in JSON must be base64: {error}") from error


def _check_outputs(request: InferRequest) -> None:
    """Refuse outputs that are not there before anything is computed."""
    asked = {output.name for output in request.request_outputs or ()}
    if unknown := sorted(asked - _OUTPUTS.keys()):
        raise RefusedError(
            Reason.MALFORMED, f"outputs={shown(unknown)} must be among {', '.join(_OUTPUTS)}"
        )


def _response(request: InferRequest, name: str, results: Sequence[Result]) -> InferResponse:
    lines = [json.dumps(result.line, ensure_ascii=False).encode() for result in results]
    values: dict[str, npt.NDArray[Any]] = {
        DECISION: np.array([result.code for result in results], np.int64),
        PROBABILITY: np.array([result.probability for result in results], np.float32),
        ANSWER: np.array(lines, np.object_),
    }
    outputs = [
        InferOutput(output, list(values[output].shape), of, values[output])
        for output, of in _OUTPUTS.items()
    ]
    return InferResponse(
        response_id=request.id or "",
        model_name=name,
        infer_outputs=outputs,
        from_grpc=request.from_grpc,
        use_binary_outputs=request.use_binary_outputs,
        requested_outputs=request.request_outputs,
    )


class _Tensor(BaseModel):
    """A tensor in the JSON of a request whose data follow it."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}


class _Output(BaseModel):
    name: str
    parameters: dict[str, Any] = {}


class _Header(BaseModel):
    """The JSON of a request whose data follow it."""

    id: str | None = None
    inputs: list[_Tensor]
    outputs: list[_Output] | None = None
    parameters: dict[str, Any] | None = None


class BundlePlane(DataPlane):  # type: ignore[misc]  # kserve has no types
    """KServe's data plane for one model; what it cannot read is refused, never an error of ours."""

    def __init__(self, model: BundleModel, deployment: Deployment) -> None:
        """Take the model, which is the only one."""
        models = ModelRepository()
        models.update(model)
        super().__init__(models)
        self._deployment = deployment

    def metadata(self) -> dict[str, Any]:
        """Return name and version of the server, and the extensions of the protocol."""
        return {**super().metadata(), "extensions": ["binary_tensor_data"]}

    async def ready(self) -> bool:
        """Whether requests are accepted: not any more after SIGTERM."""
        return self._deployment.is_accepting

    def decode_inference_request(
        self, body: bytes | InferenceRequest, headers: dict[str, str], model_name: str
    ) -> InferRequest:
        """Read a request of REST, with data in JSON or behind it. Raises RefusedError."""
        try:
            if isinstance(body, bytes):
                return _binary_request(body, headers, model_name)
            return super().decode_inference_request(body, headers, model_name)
        except RefusedError:
            raise
        except Exception as error:  # of the request, which was only read
            raise RefusedError(Reason.MALFORMED, one_line(error)) from error

    def encode(
        self,
        model_name: str,  # noqa: ARG002  # KServe's interface
        response: Any,
        headers: dict[str, str],  # noqa: ARG002
        req_attributes: Any,  # noqa: ARG002
    ) -> tuple[Any, dict[str, str]]:
        """Return a response for REST. KServe's own also makes events of it, as headers ask."""
        found, json_length = response.to_rest()
        return found, {} if json_length is None else {_JSON_LENGTH: str(json_length)}


def _binary_request(body: bytes, headers: dict[str, str], model_name: str) -> InferRequest:
    """Read a request whose data follow the JSON.

    KServe's own reader makes texts of them, which encoded images are not.
    """
    length = headers.get(_JSON_LENGTH, "")
    if not length.isdecimal() or int(length) > len(body):
        raise RefusedError(
            Reason.MALFORMED,
            f"a binary body of {len(body)} bytes needs the header {_JSON_LENGTH} with the length"
            f" of its JSON, not {shown(length)}; send application/json otherwise",
        )

    end = int(length)
    try:
        header = _Header.model_validate(parse_json(body[:end], "the request"))
    except (ArtifactError, ValidationError) as error:
        raise RefusedError(Reason.MALFORMED, one_line(error)) from error

    contents = []
    for tensor in header.inputs:
        size = tensor.parameters.get("binary_data_size")
        if not isinstance(size, int) or not 0 < size <= len(body) - end:
            raise RefusedError(
                Reason.MALFORMED,
                f"{shown(tensor.name)} has binary_data_size={shown(size)}, must be at most the"
                f" {len(body) - end} bytes that follow",
            )
        contents.append(body[end : end + size])
        end += size
    if end != len(body):
        raise RefusedError(Reason.MALFORMED, f"{len(body) - end} bytes follow the last input")

    return _request(header, contents, model_name)


def _request(header: _Header, contents: list[bytes], model_name: str) -> InferRequest:
    outputs = [RequestedOutput(output.name, output.parameters) for output in header.outputs or ()]
    return InferRequest(
        model_name=model_name,
        infer_inputs=[
            InferInput(tensor.name, tensor.shape, tensor.datatype, parameters=tensor.parameters)
            for tensor in header.inputs
        ],
        request_id=header.id,
        raw_inputs=contents,
        parameters=header.parameters,
        request_outputs=outputs or None,
    )
