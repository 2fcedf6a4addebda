"""The command: a real bundle, asked over HTTP, as a process of its own."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml

from components.shared.contracts.artifacts import read_manifest
from components.shared.contracts.environment import Variable
from components.shared.serving.answer import answer_document
from components.shared.serving.bundle import open_bundle
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from components.shared.serving.server.command import main
from components.shared.serving.signature import sign_bundle
from components.shared.storage import StoreSettings
from components.shared.storage.registry import BundleRegistry, Draft
from pipelines.sources import ROOT
from tests.bundles import (
    deferring_bundle,
    edit_json,
    onnx_bundle,
    resigned,
    with_onnx,
    write_images,
)
from tests.components.shared.serving.test_stage2 import Service
from tests.registries import new_registry
from tests.serving_server import Process
from tests.signing import key_pair

JPEG = {"content-type": "image/jpeg"}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_bundle(tmp_path_factory)


@pytest.fixture(scope="module")
def process(path: Path) -> Iterator[Process]:
    with Process(path) as found:
        yield found


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_images(tmp_path_factory.mktemp("images") / "all")


def test_it_says_where_it_listens_and_what_it_serves(process: Process, path: Path) -> None:
    assert process.said | {"http": 0, "grpc": 0} == {
        "serving": "streetvision",
        "digest": read_manifest(path).content_digest,
        "form": "onnx",
        "http": 0,
        "grpc": 0,
    }


def test_every_kind_of_image_gets_the_answer_of_the_bundle(
    process: Process, path: Path, images: list[Path]
) -> None:
    predictor = OnnxPredictor(open_bundle(path), threads=1)
    for image in images:
        data = image.read_bytes()
        answer = httpx.post(
            f"{process.url}/predict", files={"image": (image.name, data, "image/any")}, timeout=30
        )
        (expected,) = predictor.answers(predictor.pixels(data)[None])
        found = answer.json()
        assert found.pop("probability") == pytest.approx(expected.probability, abs=1e-5)
        expected_line = answer_document(expected)
        del expected_line["probability"]
        assert found == {"image": image.name} | expected_line


def test_its_end_is_clean_and_leaves_nothing_behind(path: Path, tmp_path: Path) -> None:
    with Process(path, env={"TMPDIR": str(tmp_path)}) as process:
        httpx.get(f"{process.url}/v2/health/ready").raise_for_status()
        assert process.end() == 0
        warning = f"warning: {path}: is not signed; its sums do not say who made it\n"
        assert process.errors() == warning
    assert list(tmp_path.iterdir()) == []


def test_a_changed_bundle_opens_no_port(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = resigned(path, tmp_path / "other", lambda out: None)
    edit_json(other / "policy.json", threshold=0.1)
    with pytest.raises(SystemExit) as end:
        main([str(other)])
    assert end.value.code == 42
    assert "policy.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "name either a BUNDLE, or the registry to --follow"),
        (["bundle", "--follow", "s3://b/r"], "name either a BUNDLE"),
        (["--follow", "s3://b/r", "--digest", "0" * 64], "whatever its --digest"),
        (["nowhere"], "nowhere"),
        (["{bundle}", "--stage2", "no_module_of_mine:ask"], "No module named 'no_module_of_mine'"),
        (
            ["{bundle}", "--stage2", "ftp://vlm.example"],
            "must be an http(s) URL, or",
        ),
    ],
)
def test_options_that_contradict_or_lead_nowhere_are_refused(
    arguments: list[str], reason: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([argument.format(bundle=path) for argument in arguments])
    assert end.value.code == 42
    printed = capsys.readouterr()
    (line,) = (line for line in printed.err.splitlines() if not line.startswith("warning: "))
    assert (reason in line, printed.out) == (True, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "70000"],
        ["--queue", "0"],
        ["--max-mib", "nan"],
        ["--form", "torch"],
        ["--digest", "abc"],
        ["--batch", "1.5"],
    ],
)
def test_options_out_of_range_are_usage_errors(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([*arguments, "bundle"])
    assert end.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.fixture(scope="module")
def deferring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose policy answers nothing, with its ONNX form."""
    root = tmp_path_factory.mktemp("deferring")
    return with_onnx(deferring_bundle(root), root / "bundle")


@pytest.mark.slow
def test_what_is_deferred_is_answered_by_the_service_that_the_command_names(
    deferring: Path, images: list[Path]
) -> None:
    service, image = Service(), images[0].read_bytes()
    service.answers = [
        (200, b'{"decision": "Roadwork"}'),
        (200, b'"Roadwork"'),
        (200, b'{"decision": "lorry"}'),
    ]
    try:
        with Process("--stage2", service.url, deferring) as process, httpx.Client() as client:
            found = [
                client.post(f"{process.url}/predict", content=image, headers=JPEG).json()
                for _ in range(3)
            ]
    finally:
        service.close()
    assert [(line["decision"], line["stage"]) for line in found] == [
        ("Roadwork", 2),
        ("Roadwork", 2),
        ("defer", 1),
    ]
    assert "answered 'lorry', expected one of" in found[2]["stage2_error"]
    assert [body for _, body in service.received] == [image] * 3


@pytest.mark.slow
def test_what_is_deferred_is_answered_by_the_function_that_the_command_names(
    deferring: Path, images: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "large_model.py").write_text("def ask(image):\n    return 'Roadwork'\n")
    environment = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    with Process("--stage2", "large_model:ask", deferring, env=environment) as process:
        data = images[0].read_bytes()
        found = httpx.post(f"{process.url}/predict", content=data, headers=JPEG, timeout=30).json()
    assert (found["decision"], found["stage"]) == ("Roadwork", 2)


@pytest.mark.slow
def test_a_canary_serves_the_registry_s_bundle_by_digest_and_the_champion_by_name(
    s3: StoreSettings,
    path: Path,
    tmp_path: Path,
    images: list[Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The arguments are those of the manifest."""
    registry = new_registry(s3)
    second = resigned(path, tmp_path / "second", partial(_noted, note="challenger"))
    champion, challenger = (registry.put_bundle(bundle) for bundle in (path, second))
    _promote(registry, champion)

    manifest = ROOT / "manifests/components/serving/canary/canary.yaml"
    (patch,) = (entry for entry in yaml.safe_load(manifest.read_text()) if "args" in entry["path"])
    _, *rest = (
        word.replace(f"$({Variable.BUNDLE_REGISTRY})", registry.uri) for word in patch["value"]
    )
    environment = {**s3.to_environment(), "TMPDIR": str(tmp_path)}
    for name, digest in ((challenger[:12], challenger), ("champion", champion)):
        with Process(name, *rest, env=environment) as process:
            assert process.said["digest"] == digest
            assert "grpc" not in process.said
            data = images[0].read_bytes()
            answer = httpx.post(f"{process.url}/predict", content=data, headers=JPEG, timeout=30)
            assert answer.json()["decision"] in ("None", "Roadwork")
            assert process.errors() == (
                f"warning: {name}: is not signed; its sums do not say who made it\n"
            )

    with pytest.MonkeyPatch.context() as patched:
        for variable, value in s3.to_environment().items():
            patched.setenv(variable, value)
        with pytest.raises(SystemExit) as end:
            main([challenger[:12], *rest, "--digest", champion])
    assert end.value.code == 42
    expected = f"its content digest is {challenger}, expected {champion}"
    assert expected in capsys.readouterr().err


def _promote(registry: BundleRegistry, digest: str) -> None:
    draft = Draft(kind="choice", promoted=True, challenger=digest, reason="better", because="test")
    registry.decide(draft, over=registry.champion())


@pytest.mark.slow
def test_only_a_champion_that_a_trusted_key_has_signed_takes_over(
    s3: StoreSettings, path: Path, tmp_path: Path, images: list[Path]
) -> None:
    registry = new_registry(s3)
    private, public = key_pair(tmp_path, "signing")
    bundles = [
        resigned(path, tmp_path / note, partial(_noted, note=note))
        for note in ("first", "unsigned", "foreign", "last")
    ]
    for bundle, key in (
        (bundles[0], private),
        (bundles[2], key_pair(tmp_path, "foreigner")[0]),
        (bundles[3], private),
    ):
        sign_bundle(bundle, key)
    first, unsigned, foreign, last = map(registry.put_bundle, bundles)
    _promote(registry, first)

    arguments = ("--follow", registry.uri, "--follow-seconds", "0.2", "--trusted-keys", public)
    environment = {**s3.to_environment(), "TMPDIR": str(tmp_path)}
    with Process(*arguments, env=environment) as process, httpx.Client() as client:

        def until(is_so: Callable[[], bool]) -> None:
            deadline = time.monotonic() + 60
            while not is_so():
                assert time.monotonic() < deadline, process.errors()
                answer = client.post(
                    f"{process.url}/predict", content=images[0].read_bytes(), headers=JPEG
                )
                assert answer.status_code == 200, answer.text

        for digest, reason in ((unsigned, "is not signed"), (foreign, "is signed by the key")):
            _promote(registry, digest)
            until(partial(lambda words: words in process.errors(), reason))
            assert f'digest="{first}"' in client.get(f"{process.url}/metrics").text
        _promote(registry, last)
        until(lambda: f'digest="{last}"' in client.get(f"{process.url}/metrics").text)


def _noted(bundle: Path, note: str) -> None:
    edit_json(bundle / "preprocessing.json", note=note)


@pytest.mark.slow
def test_a_new_champion_takes_over_without_a_dropped_request(
    s3: StoreSettings, path: Path, tmp_path: Path, images: list[Path]
) -> None:
    """Promoted while a client asks without a pause: every answer is a 200."""
    registry = new_registry(s3)
    second = resigned(
        path, tmp_path / "second", lambda out: edit_json(out / "preprocessing.json", note="2")
    )
    digests = [registry.put_bundle(bundle) for bundle in (path, second)]
    _promote(registry, digests[0])

    environment = {**s3.to_environment(), "TMPDIR": str(tmp_path)}
    arguments = ("--follow", registry.uri, "--follow-seconds", "0.2")
    with Process(*arguments, env=environment) as process, httpx.Client() as client:
        assert process.said["digest"] == digests[0]
        image = images[0].read_bytes()

        def ask() -> None:
            answer = client.post(f"{process.url}/predict", content=image, headers=JPEG)
            assert answer.status_code == 200, answer.text

        def serves(digest: str) -> bool:
            return f'digest="{digest}"' in client.get(f"{process.url}/metrics").text

        ask()
        _promote(registry, digests[1])
        deadline = time.monotonic() + 60
        while not serves(digests[1]):
            ask()
            assert time.monotonic() < deadline
        for _ in range(20):
            ask()
        assert process.end() == 0
        assert f"champion: {digests[1][:12]} is served" in process.errors()
