"""gRPC: KServe's own messages here, a foreign client (tritonclient) in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from components.shared.serving.server.sdk import messages
from tests.serving_server import SIZE, Running, photo, running

INFER = "/inference.GRPCInferenceService/ModelInfer"
LOAD = "/inference.GRPCInferenceService/RepositoryModelLoad"
SHAPE = [1, SIZE, SIZE, 3]
# Run apart: tritonclient and kserve both register the protocol's messages.
FOREIGN = """
import json, sys
import numpy as np
import tritonclient.grpc as triton

client = triton.InferenceServerClient(f"127.0.0.1:{sys.argv[1]}")
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready("streetvision")
metadata = client.get_model_metadata("streetvision", as_json=True)
image = triton.InferInput("images", [1], "BYTES")
image.set_data_from_numpy(np.array([open(sys.argv[2], "rb").read()], np.object_))
answer = client.infer("streetvision", [image], request_id="7")
try:
    client.infer("other", [image])
    other = ""
except triton.InferenceServerException as error:
    other = error.status()
print(json.dumps({
    "input": metadata["inputs"][0]["name"],
    "decision": answer.as_numpy("decision").tolist(),
    "probability": answer.as_numpy("probability").tolist(),
    "answer": [line.decode() for line in answer.as_numpy("answer")],
    "id": answer.get_response().id,
    "other": other,
}))
"""


@pytest.fixture(scope="module")
def channel(server: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{server.ports['grpc']}") as found:
        yield found


def _call(channel: grpc.Channel, data: bytes, method: str = INFER) -> bytes:
    """Send bytes and return bytes, so that a message may be anything."""
    found: bytes = channel.unary_unary(method)(data, timeout=30)
    return found


def _request(model: str = "streetvision", raw: bytes | None = None, **tensor: Any) -> bytes:
    fields = {"name": "images", "datatype": "UINT8", "shape": SHAPE} | tensor
    request = messages.ModelInferRequest(model_name=model, id="7", inputs=[fields])
    if raw is not None:
        request.raw_input_contents.append(raw)
    return bytes(request.SerializeToString())


def _refused(
    channel: grpc.Channel, data: bytes, method: str = INFER
) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        _call(channel, data, method)
    return error.value.code(), error.value.details()


def test_pixels_are_answered(channel: grpc.Channel) -> None:
    raw = np.full(SHAPE, 200, np.uint8).tobytes()
    answer = messages.ModelInferResponse.FromString(_call(channel, _request(raw=raw)))
    assert answer.id == "7"
    assert [output.name for output in answer.outputs] == ["decision", "probability", "answer"]
    assert np.frombuffer(answer.raw_output_contents[0], np.int64).tolist() == [1]

    contents = {"uint_contents": [128] * len(raw)}
    answer = messages.ModelInferResponse.FromString(_call(channel, _request(contents=contents)))
    assert np.frombuffer(answer.raw_output_contents[0], np.int64).tolist() == [2]


def test_a_foreign_client_is_answered(server: Running, tmp_path: Any) -> None:
    image = tmp_path / "photo.jpg"
    image.write_bytes(photo(200, "JPEG"))
    ran = subprocess.run(
        [sys.executable, "-c", FOREIGN, str(server.ports["grpc"]), str(image)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = json.loads(ran.stdout)
    assert found["input"] == "images"
    assert found["decision"] == [1]
    assert found["probability"] == pytest.approx([200 / 255], abs=0.01)
    assert json.loads(found["answer"][0])["decision"] == "Roadwork"
    assert found["id"] == "7"
    assert found["other"] == "StatusCode.NOT_FOUND"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"\xff\xff\xff", "protobuf: ", id="malformed"),
        pytest.param(_request(datatype="FP32"), "must be UINT8 or BYTES", id="float"),
        pytest.param(_request(datatype="WAVE"), "invalid content type", id="unknown-type"),
        pytest.param(_request(), "images", id="no-data"),
        pytest.param(_request(raw=b"12"), "images: ", id="too-short"),
        pytest.param(_request(raw=b"\xff\xff\xff\xffx", datatype="BYTES", shape=[1]), "images: "),
        pytest.param(_request(raw=b"x", contents={"uint_contents": [1]}), "contents", id="twice"),
        pytest.param(
            _request(contents={"uint_contents": [300] * 192}), "numbers of 0 to 255", id="range"
        ),
        pytest.param(
            _request(datatype="BYTES", shape=[1], contents={"bytes_contents": [b"x"]}),
            "not an image",
            id="no-image",
        ),
    ],
)
def test_what_is_malformed_is_an_invalid_argument(
    channel: grpc.Channel, data: bytes, reason: str
) -> None:
    code, details = _refused(channel, data)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert reason in details
    raw = np.full(SHAPE, 200, np.uint8).tobytes()
    assert _call(channel, _request(raw=raw))


def test_other_refusals_have_their_codes(channel: grpc.Channel) -> None:
    code, details = _refused(channel, _request("other", raw=bytes(192)))
    assert (code, details) == (
        grpc.StatusCode.NOT_FOUND,
        "Model with name other does not exist.",
    )
    load = messages.RepositoryModelLoadRequest(model_name="streetvision").SerializeToString()
    assert _refused(channel, load, LOAD)[0] is grpc.StatusCode.NOT_FOUND
    assert _refused(channel, bytes(1_000_000))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_full_queue_is_unavailable_and_says_when_to_try_again() -> None:
    with (
        running(queued_images=1) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.ports['grpc']}") as channel,
    ):
        server.deployment.admission.n_images = 1
        with pytest.raises(grpc.RpcError) as error:
            _call(channel, _request(raw=bytes(192)))
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert ("retry-after", "1") in [tuple(entry) for entry in error.value.trailing_metadata()]
        server.deployment.admission.n_images = 0
