"""Credentials that are planted where users put them by mistake are nowhere in what comes out.

Each place is tried through the entry that reads it; afterwards all that was printed, and every file
that was written, is searched for the credential.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from components.import_backbone.config import ImportBackboneConfig
from components.import_backbone.step import run as import_backbone
from components.ingest_dataset.step import run as ingest_dataset
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import one_line
from components.shared.contracts.step import execute
from components.shared.data.lineage import Lineage
from components.shared.serving.bundle import open_bundle
from components.shared.storage import Store, StoreSettings
from components.shared.training.checkpoint.remote import RemoteCheckpoints
from components.shared.training.launch.failures import report_error
from pipelines.cli.app import main
from pipelines.kubeflow.options import StoreOptions
from pipelines.kubeflow.run_store import root_for_runs
from tests.golden.make import FOLDER
from tests.lying_store import lying_store

PLANTED = "S3CRETPW"
TOKEN = f"hf_{PLANTED * 4}"
WRAPPED = f"{PLANTED}AAAA\n{PLANTED}BBBB"
URI = f"s3://AKIAUSER:{PLANTED}@bucket/photos"
SIGNED = f"https://host/photos?X-Amz-Signature={PLANTED}&X-Amz-Credential={PLANTED}"

Planted = Callable[[Path, pytest.MonkeyPatch], object]


def _pipelines(*arguments: str) -> Planted:
    return lambda folder, _: main(
        [argument.replace("FOLDER", str(folder)) for argument in arguments]
    )


def _run(parameter: str) -> Planted:
    return _pipelines(
        "run", "--output", "FOLDER/runs", "--param", "backbone=org/name", "--param", parameter
    )


def _with(name: str, value: str, then: Planted) -> Planted:
    def planted(folder: Path, patch: pytest.MonkeyPatch) -> None:
        patch.setenv(name, value)
        then(folder, patch)

    return planted


def _parameter_file(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder.parent / "given.yaml").write_text(f"data: {URI}\nbackbone: org/name\n")
    _pipelines("run", "--params", str(folder.parent / "given.yaml"))(folder, patch)


def _step_alone(folder: Path, _: pytest.MonkeyPatch) -> None:
    given = {"config": {"data": URI}, "paths": {"dataset": str(folder / "o/dataset")}}
    (folder.parent / "given.json").write_text(json.dumps(given))
    step = [sys.executable, "-m", "components.ingest_dataset.step"]
    finished = subprocess.run(
        [*step, folder.parent / "given.json"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 42
    assert (folder / "o/status.json").is_file()
    print(finished.stdout, finished.stderr)


def _component(folder: Path, _: pytest.MonkeyPatch) -> None:
    dataset = SimpleNamespace(path=str(folder / "o/dataset"))
    execute(ingest_dataset, {"data": SIGNED}, dataset=dataset)


def _unexpected(folder: Path, _: pytest.MonkeyPatch) -> None:
    """The traceback of an error that nobody raised on purpose."""
    program = f"""
from pathlib import Path
from components.ingest_dataset.config import IngestConfig
from components.shared.contracts.step import OutputDir, execute
from types import SimpleNamespace

def step(config: IngestConfig, *, out: OutputDir) -> None:
    raise ValueError("Invalid header value b'Bearer " + {PLANTED[:4]!r} + "{PLANTED[4:]}99'")

execute(step, {{}}, out=SimpleNamespace(path={str(folder / "o/out")!r}))
"""
    module = folder.parent / "phase" / "step.py"
    module.parent.mkdir()
    module.write_text(program)
    finished = subprocess.run(
        [sys.executable, module],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path.cwd())},
    )
    assert "ValueError" in finished.stderr
    assert (folder / "o/status.json").is_file()
    print(finished.stdout, "\n".join(finished.stderr.splitlines()[-1:]))


def _hub_error(folder: Path, patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise ConnectionError(f"403 for https://hub/api?token={TOKEN}, authorization: {WRAPPED}")

    patch.setattr(huggingface_hub, "snapshot_download", refuse)
    patch.setenv("HF_TOKEN", WRAPPED)
    pretrained = SimpleNamespace(path=str(folder / "o/pretrained"))
    execute(
        import_backbone, ImportBackboneConfig(backbone="org/name").to_json(), pretrained=pretrained
    )


def _echoing_store(_: Path, __: pytest.MonkeyPatch) -> None:
    """A store, or what stands before it, that repeats the credentials in its error."""
    body = f"<Error><Code>AccessDenied</Code><Message>{PLANTED}-of-store</Message></Error>".encode()
    with lying_store(lambda call: call.reply(403, body, Content_Type="application/xml")) as server:
        settings = StoreSettings(
            endpoint=server.endpoint, access_key="k", secret_key=f"{PLANTED}-of-store", secure=False
        )
        Store(settings).list("bucket")


def _report_of_a_rank(folder: Path, _: pytest.MonkeyPatch) -> None:
    report_error(folder, 0, ValueError(f"cannot upload to {URI}\nby {SIGNED}"))
    assert "cannot upload to s3://***@bucket/photos by" in (folder / "error-rank0.json").read_text()


def _signing_key(content: str) -> Planted:
    """A key whose file is damaged, or is named where trusted keys belong."""

    def planted(folder: Path, patch: pytest.MonkeyPatch) -> None:
        (folder.parent / "key.pem").write_text(content)
        shutil.copytree(FOLDER / "bundle", folder / "bundle")
        sign = ("sign", "FOLDER/bundle", "--key", "FOLDER/../key.pem")
        print(Variable.SIGNING_KEY)
        _pipelines(*sign)(folder, patch)

    return planted


def _trusted_private_key(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder.parent / "key.pem").write_text(_KEY)
    shutil.copytree(FOLDER / "bundle", folder / "bundle")
    print(Variable.TRUSTED_KEYS)
    patch.setenv(Variable.TRUSTED_KEYS, str(folder.parent / "key.pem"))
    open_bundle(folder / "bundle")


_KEY = f"-----BEGIN PRIVATE KEY-----\n{PLANTED * 6}\n-----END PRIVATE KEY-----\n"
_PING = _pipelines("status", "run-1")
_UPLOAD = _pipelines("upload-data", "FOLDER/../photos", "s3://bucket/photos")

PLACES: dict[str, Planted] = {
    "data with user information": _run(f"data={URI}"),
    "data with a slash in the password": _run(
        f"data=s3://AKIAUSER:{PLANTED}/{PLANTED}@bucket/photos"
    ),
    "data with a signature": _run(f"data={SIGNED}"),
    "data with a wrapped password": _run(f"data=s3://AKIAUSER:{WRAPPED}@bucket/photos"),
    "backbone with user information": _run(f"backbone=https://user:{PLANTED}@host/x"),
    "backbone that is a token": _run(f"backbone={TOKEN}"),
    "backbone of the hub with a token": _run(f"backbone=hf://user:{TOKEN}@host/x"),
    "a further source": _run(f'extra_sources=[{{"data": "{URI}"}}]'),
    "a description": _run(f"description=see {SIGNED}"),
    "a key of a mapping": _run(f'label_map={{"{URI}": "None"}}'),
    "an unknown option": _run(f"dta={URI}"),
    "a parameter file": _parameter_file,
    "a step's file": _step_alone,
    "a component's configuration": _component,
    "an unexpected error": _unexpected,
    "the hub's error": _hub_error,
    "a store's error": _echoing_store,
    "a rank's error": _report_of_a_rank,
    "the API's address": _with(
        "KF_PIPELINES_ENDPOINT", f"http://admin:{PLANTED}@127.0.0.1:1/pipeline", _PING
    ),
    "the API's address without scheme": _pipelines(
        "status", "run-1", "--host", f"admin:{PLANTED}@127.0.0.1:1"
    ),
    "the API's token, wrapped": _with(
        "STREETVISION_KFP_TOKEN",
        WRAPPED,
        _with("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:1", _PING),
    ),
    "the API's cookie, wrapped": _with(
        "STREETVISION_KFP_COOKIE",
        f"authservice_session={WRAPPED}",
        _with("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:1", _PING),
    ),
    "the store's address": _with(
        "STREETVISION_S3_ENDPOINT", f"http://AKIAKEY:{PLANTED}@store:9000", _UPLOAD
    ),
    "the store's security": _with("STREETVISION_S3_SECURE", PLANTED, _UPLOAD),
    "the store's authorities": _with("STREETVISION_S3_CA_FILE", PLANTED * 500, _UPLOAD),
    "the store's session token, wrapped": _with("STREETVISION_S3_SESSION_TOKEN", WRAPPED, _UPLOAD),
    "the address of an upload": _pipelines("upload-data", "FOLDER/../photos", URI),
    "a damaged signing key": _signing_key(_KEY),
    "a signing key that is no PEM": _signing_key(PLANTED * 8),
    "a signing key among the trusted ones": _trusted_private_key,
    "the store of checkpoints": lambda *_: RemoteCheckpoints(
        SimpleNamespace(),
        URI,
        "key",  # type: ignore[arg-type]
    ),
    "the place of lineages": _with("STREETVISION_LINEAGES", URI, lambda *_: Lineage.open("name")),
    "the root of the artifacts": lambda *_: root_for_runs(StoreOptions(root=URI), None),
    "the root of the artifacts, of KFP": _with(
        "STREETVISION_PIPELINE_ROOT",
        URI.replace("s3:", "minio:"),
        lambda *_: root_for_runs(StoreOptions(), None),
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_planted_credential_is_neither_printed_nor_stored(
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    written = tmp_path / "written"
    written.mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/labels.csv").write_text("path,label\n1.jpg,1\n")
    for name, value in {
        "ENDPOINT": "127.0.0.1:1",
        "ACCESS_KEY": "access",
        "SECRET_KEY": "of-nobody-at-all",
    }.items():
        monkeypatch.setenv(f"STREETVISION_S3_{name}", value)

    error = ""
    try:
        PLACES[place](written, monkeypatch)
    except SystemExit as ended:
        error = f"ended with {ended.code}"
    except Exception as raised:
        error = one_line(raised)

    printed = capfd.readouterr()
    files = [file for file in written.rglob("*") if file.is_file()]
    texts = [printed.out, printed.err, error, *map(str, files)]
    texts += [file.read_text(errors="replace") for file in files]
    assert any(sign in "".join(texts) for sign in ("***", "STREETVISION_")), "the entry refuses it"
    for text in texts:
        assert PLANTED not in text
        assert PLANTED[:6] not in text


def test_there_are_at_least_twenty_places() -> None:
    assert len(PLACES) >= 20
