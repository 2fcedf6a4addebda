"""The protocol v2 over HTTP: tensors and encoded images, in JSON and behind it."""

import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest

from tests.serving_server import SIZE, photo

URL = "/v2/models/streetvision/infer"
SHAPE = [1, SIZE, SIZE, 3]
N = SIZE * SIZE * 3


def _tensor(data: Any, shape: list[int] = SHAPE, **fields: Any) -> dict[str, Any]:
    return {"name": "images", "datatype": "UINT8", "shape": shape, "data": data} | fields


def _outputs(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return {output["name"]: output["data"] for output in answer.json()["outputs"]}


def _binary(
    tensors: list[dict[str, Any]], contents: list[bytes], **fields: Any
) -> tuple[bytes, dict[str, str]]:
    header = json.dumps({"inputs": tensors} | fields).encode()
    return b"".join([header, *contents]), {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(header)),
    }


def _sized(size: int, shape: list[int], datatype: str) -> dict[str, Any]:
    return {
        "name": "images",
        "shape": shape,
        "datatype": datatype,
        "parameters": {"binary_data_size": size},
    }


def test_pixels_and_encoded_images_are_answered_alike(client: httpx.Client) -> None:
    pixels = np.full((2, SIZE, SIZE, 3), 200, np.uint8)
    pixels[1] = 128
    images = [photo(200), photo(128)]
    as_json = client.post(
        URL, json={"id": "7", "inputs": [_tensor(pixels.tolist(), list(pixels.shape))]}
    )
    flat = client.post(
        URL, json={"inputs": [_tensor(pixels.reshape(-1).tolist(), list(pixels.shape))]}
    )
    text = [base64.b64encode(image).decode() for image in images]
    encoded = client.post(URL, json={"inputs": [_tensor(text, [2], datatype="BYTES")]})

    assert as_json.json()["id"] == "7"
    assert _outputs(as_json) == _outputs(flat) == _outputs(encoded)
    found = _outputs(as_json)
    assert found["decision"] == [1, 2]
    assert np.allclose(found["probability"], [200 / 255, 128 / 255])
    assert [json.loads(line)["decision"] for line in found["answer"]] == ["Roadwork", "defer"]


def test_data_may_follow_the_json(client: httpx.Client) -> None:
    pixels = np.full(SHAPE, 200, np.uint8).tobytes()
    content, headers = _binary([_sized(len(pixels), SHAPE, "UINT8")], [pixels])
    assert _outputs(client.post(URL, content=content, headers=headers))["decision"] == [1]

    image = photo(10, "JPEG")
    element = len(image).to_bytes(4, "little") + image
    content, headers = _binary([_sized(len(element), [1], "BYTES")], [element])
    assert _outputs(client.post(URL, content=content, headers=headers))["decision"] == [0]


def test_outputs_are_those_asked_for_also_in_binary(client: httpx.Client) -> None:
    asked = [{"name": "probability", "parameters": {"binary_data": True}}]
    answer = client.post(URL, json={"inputs": [_tensor([51] * N)], "outputs": asked})
    length = int(answer.headers["inference-header-content-length"])
    assert [output["name"] for output in json.loads(answer.content[:length])["outputs"]] == [
        "probability"
    ]
    assert np.frombuffer(answer.content[length:], np.float32)[0] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"inputs": []}, "must be one, named 'images'"),
        ({"inputs": [_tensor([1], name="image")]}, "inputs=['image'], must be one"),
        ({"inputs": [_tensor([1.0] * N, datatype="FP32")]}, "'FP32', must be UINT8 or BYTES"),
        ({"inputs": [_tensor([1], [1, 9, 9, 3])]}, "must be [N, 8, 8, 3]"),
        ({"inputs": [_tensor([], [0, 8, 8, 3])]}, "must be [N, 8, 8, 3]"),
        ({"inputs": [_tensor([1], [10**9, 8, 8, 3])]}, "1 values for shape"),
        ({"inputs": [_tensor([1] * (N - 1))]}, "191 values for shape"),
        ({"inputs": [_tensor([0.5] * N)]}, "whole numbers of 0 to 255"),
        ({"inputs": [_tensor([256] * N)]}, "whole numbers of 0 to 255"),
        ({"inputs": [_tensor([-1] * N)]}, "whole numbers of 0 to 255"),
        ({"inputs": [_tensor([10**400] * N)]}, "whole numbers of 0 to 255"),
        ({"inputs": [_tensor([True] * N)]}, "whole numbers of 0 to 255"),
        ({"inputs": [_tensor(["a"] * N)]}, "whole numbers of 0 to 255"),
        ({"inputs": [_tensor([[1], [1, 2]])]}, "images: "),
        ({"inputs": [_tensor(["%"], [1], datatype="BYTES")]}, "must be base64"),
        ({"inputs": [_tensor([5], [1], datatype="BYTES")]}, "a text in base64"),
        ({"inputs": [_tensor(["YQ=="], [2], datatype="BYTES")]}, "1 elements for shape [2]"),
        ({"inputs": [_tensor(["YQ=="], [], datatype="BYTES")]}, "must be [N]"),
        ({"inputs": [_tensor(["YQ=="], [1], datatype="BYTES")]}, "not an image"),
        ({"inputs": [_tensor([1] * N)], "outputs": [{"name": "x"}]}, "outputs=['x'] must be among"),
    ],
)
def test_malformed_tensors_are_refused(
    client: httpx.Client, body: dict[str, Any], reason: str
) -> None:
    answer = client.post(URL, json=body)
    assert answer.status_code == 400, answer.text
    assert reason in answer.json()["error"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_lacks_are_refused(client: httpx.Client, number: str) -> None:
    body = json.dumps({"inputs": [_tensor([7] * N)]}).replace("7", number, 1)
    answer = client.post(URL, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize(
    ("tensors", "contents", "length", "reason"),
    [
        ([_sized(N, SHAPE, "FP64")], [bytes(N)], None, "must be UINT8 or BYTES"),
        ([_sized(N + 1, SHAPE, "UINT8")], [bytes(N)], None, "must be at most the 192 bytes"),
        ([_sized(-1, SHAPE, "UINT8")], [bytes(N)], None, "binary_data_size=-1"),
        ([_sized(N - 1, SHAPE, "UINT8")], [bytes(N)], None, "1 bytes follow the last input"),
        ([_sized(4, [1], "BYTES")], [b"\xff\xff\xff\xff"], None, "images: "),
        ([_sized(2, [1], "BYTES")], [b"\0\0"], None, "images: "),
        ([_sized(N, SHAPE, "UINT8")], [bytes(N)], "x", "not 'x'"),
        ([_sized(N, SHAPE, "UINT8")], [bytes(N)], "99999", "not '99999'"),
        ([_sized(N, SHAPE, "UINT8")], [bytes(N)], "0", "the request"),
        ([{"name": 5}], [], None, "name"),
    ],
)
def test_malformed_binary_requests_are_refused(
    client: httpx.Client,
    tensors: list[dict[str, Any]],
    contents: list[bytes],
    length: str | None,
    reason: str,
) -> None:
    content, headers = _binary(tensors, contents)
    if length is not None:
        headers["inference-header-content-length"] = length
    answer = client.post(URL, content=content, headers=headers)
    assert answer.status_code == 400, answer.text
    assert reason in answer.json()["error"]


def test_more_images_than_the_queue_holds_are_refused(client: httpx.Client) -> None:
    answer = client.post(URL, json={"inputs": [_tensor([1] * 9 * N, [9, SIZE, SIZE, 3])]})
    assert answer.status_code == 413
    assert answer.json()["error"] == "9 images, at most 8 in one request"
