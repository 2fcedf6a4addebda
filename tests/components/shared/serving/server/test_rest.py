"""HTTP over a real socket: what is answered, and every kind of bad request with its reason."""

import hashlib
from typing import Any

import httpx
import pytest

from tests.serving_server import Running, photo

JPEG = {"content-type": "image/jpeg"}
INFER = "/v2/models/streetvision/infer"


def _sample(name: str, client: httpx.Client, **labels: str) -> float:
    """Value of a metric with these labels."""
    wanted = ",".join(f'{key}="{value}"' for key, value in labels.items())
    found = f"{name}{{{wanted}}} " if labels else f"{name} "
    for line in client.get("/metrics").text.splitlines():
        if line.startswith(found):
            return float(line.rpartition(" ")[2])
    return 0.0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_image_is_answered_with_the_line_of_predict(client: httpx.Client, kind: str) -> None:
    image = photo(200, kind)
    answer = client.post(
        "/predict", content=image, headers={"content-type": f"image/{kind.lower()}"}
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.text.endswith("}\n")
    assert answer.text.count("\n") == 1
    line = answer.json()
    assert line.pop("probability") == pytest.approx(200 / 255, abs=0.01)
    assert line == {
        "image": hashlib.sha256(image).hexdigest()[:16],
        "decision": "Roadwork",
        "threshold": 0.6,
    }


def test_the_file_of_a_form_is_answered_under_its_name(client: httpx.Client) -> None:
    answer = client.post("/predict", files={"any": ("Straße 1.png", photo(10), "image/png")})
    assert answer.json()["image"] == "Straße 1.png"
    assert answer.json()["decision"] == "none"


@pytest.mark.parametrize(
    ("content", "headers", "status", "reason"),
    [
        pytest.param(b"", JPEG, 400, "empty file", id="no-bytes"),
        pytest.param(b"hello", JPEG, 400, "not an image in a supported format", id="no-image"),
        pytest.param(photo(9, "JPEG")[:200], JPEG, 400, "truncated or corrupt", id="truncated"),
        pytest.param(
            photo(9, size=200), JPEG, 413, "200 x 200 is more than max_pixels=10000", id="bomb"
        ),
        pytest.param(
            bytes(200_001), JPEG, 413, "the body has more than 200000 bytes", id="too-large"
        ),
        pytest.param(
            photo(9),
            {"content-type": "text/plain"},
            415,
            "content-type='text/plain' must",
            id="text",
        ),
        pytest.param(photo(9), {}, 415, "content-type='' must be", id="no-type"),
        pytest.param(
            photo(9), {"content-type": "multipart/form-data"}, 400, "form: ", id="no-boundary"
        ),
        pytest.param(
            b"--x\r\nnonsense",
            {"content-type": "multipart/form-data; boundary=x"},
            400,
            "form",
            id="bad-form",
        ),
    ],
)
def test_a_bad_request_is_refused_with_its_reason(
    client: httpx.Client, content: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    answer = client.post("/predict", content=content, headers=headers)
    assert answer.status_code == status
    assert reason in answer.json()["error"]
    assert client.post("/predict", content=photo(9), headers=JPEG).status_code == 200


def test_a_form_must_have_one_file(client: httpx.Client) -> None:
    none = client.post("/predict", files={"note": (None, "text")})
    assert (none.status_code, none.json()["error"][:22]) == (400, "the form has 0 files, ")
    two = client.post("/predict", files=[("a", photo(1)), ("b", photo(2))])
    assert two.status_code == 400
    assert "Too many files" in two.json()["error"]


def test_100_mb_are_refused_and_the_client_hears_why(client: httpx.Client) -> None:
    answer = client.post("/predict", content=bytes(100_000_000), headers=JPEG)
    assert answer.status_code == 413
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("GET", "/predict", 405),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/other/ready", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/v2/models/streetvision/versions/1", 404),
        ("POST", "/v2/models/streetvision/versions/1/infer", 404),
        ("POST", "/v2/repository/models/streetvision/unload", 404),
        ("POST", "/v2/repository/models/streetvision/load", 404),
        ("DELETE", "/v2/models/streetvision", 405),
    ],
)
def test_what_is_not_there_is_4xx(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [""]}
    body = {"json": {"inputs": [tensor]}} if method == "POST" else {}
    answer = client.request(method, path, **body)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_probes_and_metadata(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/streetvision/ready").json()["ready"] is True
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    model = client.get("/v2/models/streetvision").json()
    assert model["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 8, 8, 3]}]
    assert [output["name"] for output in model["outputs"]] == ["decision", "probability", "answer"]


def test_malformed_json_is_refused(client: httpx.Client) -> None:
    def refused(content: bytes) -> str:
        answer = client.post(INFER, content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        return str(answer.json()["error"])

    assert "JSON" in refused(b"{") or "body" in refused(b"{")
    assert refused(b"{}")
    assert refused(b"[" * 100_000)
    assert refused(b'{"inputs": [{"name": "images"}]}')
    assert refused(b'{"inputs": "x"}')


def test_metrics_count_requests_decisions_and_refusals(
    client: httpx.Client, server: Running
) -> None:
    names: list[tuple[str, dict[str, Any]]] = [
        ("streetvision_requests_total", {"endpoint": "predict", "status": "200"}),
        ("streetvision_requests_total", {"endpoint": "predict", "status": "400"}),
        ("streetvision_request_seconds_count", {"endpoint": "predict"}),
        ("streetvision_decisions_total", {"decision": "defer"}),
        ("streetvision_defers_total", {}),
        ("streetvision_views_total", {}),
        ("streetvision_rejected_total", {"reason": "not_an_image"}),
    ]
    before = [_sample(name, client, **labels) for name, labels in names]
    client.post("/predict", content=photo(128), headers=JPEG)
    client.post("/predict", content=b"x", headers=JPEG)
    after = [_sample(name, client, **labels) for name, labels in names]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1] * len(names)
    assert _sample("streetvision_queued_images", client) == 0
    assert _sample("streetvision_bundle", client, digest="a" * 64, form="onnx") == 1
