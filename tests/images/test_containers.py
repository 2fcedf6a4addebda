"""Every step inside its own image: offline, as nobody in particular, on a root file system that
cannot be written.

Run by `make test-containers`; without a container engine these tests are skipped and pytest says so
at the end.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from kfp import local

from components.shared.contracts.artifacts import verify_dir
from components.shared.serving.bundle import open_bundle
from pipelines.demo.backbone import write_demo_backbone
from pipelines.demo.dataset import write_demo_data
from pipelines.images import Builder, all_images, build_images, missing_images
from pipelines.resources import LOCAL
from pipelines.sources import SERVER
from pipelines.stage1 import stage1
from tests.bundles import onnx_bundle

pytestmark = pytest.mark.slow

USER = "10001:10001"
IMAGES = all_images()
PLANTED = ("AKIAPLANTEDCREDENTIAL", "planted-secret-8d1f0c")


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    """The engine, with all images built."""
    if "DOCKER_HOST" not in os.environ:
        pytest.skip("no container engine: DOCKER_HOST is not set; make test-containers starts one")
    client = docker.from_env(timeout=600)
    with pytest.MonkeyPatch.context() as patch:
        # Whatever credentials the builder has in its environment must not get into an image.
        patch.setenv("STREETVISION_S3_ACCESS_KEY", PLANTED[0])
        patch.setenv("STREETVISION_S3_SECRET_KEY", PLANTED[1])
        builder = Builder.from_environment()
        build_images(missing_images(IMAGES, builder), builder)
    yield client
    client.close()


@pytest.fixture(scope="module")
def finished(
    engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Outputs of the whole pipeline, run in the images on generated scenes."""
    root = tmp_path_factory.mktemp("containers")
    write_demo_data(root / "data")
    write_demo_backbone(root / "backbone")
    for place in [root, *root.rglob("*")]:
        place.chmod(0o777 if place.is_dir() else 0o644)
    local.init(
        local.DockerRunner(
            network_mode="none",
            user=USER,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            tmpfs={"/tmp": "mode=1777,exec"},
            shm_size="1g",
        ),
        pipeline_root=str(root),
        enable_caching=False,
    )
    task = stage1(LOCAL)(data=str(root / "data"), backbone=str(root / "backbone"), recipe="demo")
    return {name: Path(artifact.path) for name, artifact in task.outputs.items()}


def test_the_whole_pipeline_runs_inside_its_images(finished: dict[str, Path]) -> None:
    bundle = open_bundle(finished["bundle"])
    report = json.loads((finished["evaluation"] / "eval_report.json").read_text())
    assert 0 < bundle.policy.threshold < 1
    assert report["n_samples"] > 0
    assert finished["report"].read_text().startswith("<!")
    assert verify_dir(finished["evaluation"], "Evaluation").step == "evaluate"
    assert finished["bundle"].stat().st_uid == int(USER.partition(":")[0])


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.phase)
def test_an_image_is_small_has_no_tools_and_runs_as_nobody(
    engine: docker.DockerClient, image: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = engine.images.get(image.reference)
    labels, config = found.labels, found.attrs["Config"]
    size = found.attrs["Size"] / 1e6
    with capsys.disabled():
        print(f"{image.reference}: {size:.0f} MB")
    if (
        image.kind != "trainer" or Builder.from_environment().wheels
    ):  # the index's torch brings gigabytes of CUDA
        assert size < (2000 if image.kind == "trainer" else 1000)
    assert config["User"] == USER
    assert labels["org.opencontainers.image.title"] == f"streetvision {image.phase}"
    assert labels["org.opencontainers.image.version"] in image.reference
    tools = (
        "import shutil, importlib.util as u, os; print([t for t in ('gcc', 'cc', 'make', 'pip',"
        " 'pip3') if shutil.which(t)] + [m for m in ('pip', 'setuptools', 'torch') if"
        " u.find_spec(m)], os.getuid())"
    )
    output = engine.containers.run(
        image.reference, ["python3", "-c", tools], remove=True, network_mode="none"
    )
    assert output.decode().split("] ")[0] == ("['torch'" if image.kind == "trainer" else "[")
    assert output.decode().split()[-1] == "10001"


@pytest.mark.parametrize("kind", ["cpu", "server", "trainer"])
def test_no_credential_of_the_builder_is_in_an_image(
    engine: docker.DockerClient, kind: str
) -> None:
    image = engine.images.get(next(i.reference for i in IMAGES if i.kind == kind))
    history = json.dumps(image.history()) + json.dumps(image.attrs["Config"])
    scan = "grep -rlsE 'PLANTED|planted-secret' / --exclude-dir=proc --exclude-dir=sys || true"
    found = engine.containers.run(
        image.id, ["sh", "-c", scan], remove=True, network_mode="none", user="0"
    )
    assert not any(secret in history for secret in PLANTED)
    assert found.decode() == ""
    authority = engine.containers.run(image.id, ["ls", "/run"], remove=True, network_mode="none")
    assert "ca.pem" not in authority.decode()


def test_the_server_answers_offline_as_nobody_on_a_read_only_root(
    engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Asked from inside its container, which has no network but its own loopback."""
    bundle = onnx_bundle(tmp_path_factory)
    for place in [bundle, *bundle.rglob("*"), *bundle.parents]:
        if place.is_relative_to(tmp_path_factory.getbasetemp().parent):
            place.chmod(0o755 if place.is_dir() else 0o644)
    (image,) = (image for image in IMAGES if image.kind == SERVER)
    container = engine.containers.run(
        image.reference,
        ["python3", "-m", "components.shared.serving.server", "/bundle"],
        detach=True,
        network_mode="none",
        user=USER,
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        tmpfs={"/tmp": "mode=1777"},
        volumes={str(bundle): {"bind": "/bundle", "mode": "ro"}},
    )
    try:
        answer = container.exec_run(["python3", "-c", _ASK])
        assert answer.exit_code == 0, (answer.output, container.logs())
        assert json.loads(answer.output)["decision"] in ("None", "Roadwork")
        container.kill("SIGTERM")
        assert container.wait(timeout=60)["StatusCode"] == 0
    finally:
        container.remove(force=True)


# Waits until the server is ready, and asks it about an image.
_ASK = """
import io, time, urllib.request
from PIL import Image
url = "http://127.0.0.1:8080"
for _ in range(600):
    try:
        urllib.request.urlopen(url + "/v2/health/ready")
        break
    except OSError:
        time.sleep(0.1)
stream = io.BytesIO()
Image.new("RGB", (64, 48), (200, 120, 40)).save(stream, "JPEG")
request = urllib.request.Request(
    url + "/predict", stream.getvalue(), {"Content-Type": "image/jpeg"}
)
print(urllib.request.urlopen(request).read().decode())
"""
