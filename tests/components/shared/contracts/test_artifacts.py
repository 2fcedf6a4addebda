"""Artifact directories: what a reader refuses, and that a failed writer leaves nothing."""

import hashlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from components.shared.contracts import artifacts
from components.shared.contracts.config import Config
from components.shared.contracts.errors import ArtifactError, LeakageViolationError
from tests.components.conftest import TinyRun
from tests.modes import modes
from tests.resigned import signed


def _write(path: Path, *, split: str | None = "VAL_CALIB") -> None:
    with artifacts.writing(path, kind="Thing", step="test", config=Config(), split=split) as out:
        (out / "a.bin").write_bytes(b"alpha")
        (out / "deep").mkdir()
        (out / "deep" / "b.txt").write_text("beta", encoding="utf-8")


def _edit_manifest(path: Path, **changes: object) -> None:
    document = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(document | changes))


def _replaced_by_link(entry: Path) -> None:
    real = entry.rename(entry.parent.parent / f"real-{entry.name}")
    entry.symlink_to(real)


def _list(path: Path, name: str) -> None:
    """List an empty file of that name in the manifest."""
    document = json.loads((path / "manifest.json").read_bytes())
    document["files"][name] = {"bytes": 0, "sha256": hashlib.sha256().hexdigest()}
    (path / "manifest.json").write_bytes(signed(document))


def test_what_was_written_verifies(tmp_path: Path) -> None:
    _write(tmp_path / "x")
    manifest = artifacts.verify_dir(tmp_path / "x", "Thing", split="VAL_CALIB")
    assert sorted(manifest.files) == ["a.bin", "deep/b.txt"]


def test_other_users_can_read_whatever_the_umask_and_the_library(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with artifacts.writing(tmp_path / "x", kind="Thing", step="test", config=Config()) as out:
            (out / "deep").mkdir()
            (out / "deep" / "weights").touch(mode=0o600)
            (out / "tool").touch(mode=0o755)
    finally:
        os.umask(before)
    assert modes(tmp_path / "x") == {
        ".": "755",
        "deep": "755",
        "deep/weights": "644",
        "manifest.json": "644",
        "tool": "644",
    }


def test_other_users_can_read_every_artifact_of_a_pipeline(tiny: TinyRun) -> None:
    """safetensors wrote 0600: a server of another user could not read the bundle's model."""
    paths = [manifest.parent for manifest in tiny.root.rglob("manifest.json")]
    assert {"backbone", "dataset", "checkpoint", "policy", "bundle"} <= {p.name for p in paths}
    found = {f"{path.name}/{name}": mode for path in paths for name, mode in modes(path).items()}
    assert "bundle/model/model.safetensors" in found
    assert set(found.values()) == {"644", "755"}
    assert {name for name, mode in found.items() if mode == "755"} == {
        name for name in found if (tiny.root / name).is_dir()
    }


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    _write(tmp_path / "x")
    _write(tmp_path / "y")
    assert (tmp_path / "x/manifest.json").read_bytes() == (
        tmp_path / "y/manifest.json"
    ).read_bytes()


def test_a_failing_writer_leaves_nothing_and_keeps_the_old_artifact(tmp_path: Path) -> None:
    _write(tmp_path / "x")

    def interrupted() -> None:
        with artifacts.writing(tmp_path / "x", kind="Thing", step="test", config=Config()) as out:
            (out / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]
    artifacts.verify_dir(tmp_path / "x", "Thing", split="VAL_CALIB")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "a.bin").write_bytes(b"alphA"), "a.bin: sha256"),
        (lambda p: (p / "a.bin").write_bytes(b"alp"), "a.bin: 3 bytes, expected 5"),
        (lambda p: (p / "a.bin").unlink(), "a.bin: missing"),
        (lambda p: (p / "extra").write_bytes(b""), "extra: not in the manifest"),
        (lambda p: (p / "link").symlink_to("a.bin"), "link: symbolic link refused"),
        (lambda p: (p / "link").symlink_to("/usr"), "1 difference(s) from its manifest: link: sym"),
        (lambda p: (p / "deep/link").symlink_to(".."), "deep/link: symbolic link refused"),
        (lambda p: _replaced_by_link(p / "a.bin"), "a.bin: symbolic link refused"),
        (lambda p: _replaced_by_link(p / "deep"), "deep: symbolic link refused"),
        (lambda p: _replaced_by_link(p / "manifest.json"), "manifest.json: not a regular file"),
        (lambda p: (p / "empty").mkdir(), "empty: empty directory, not in the manifest"),
        (lambda p: os.mkfifo(p / "pipe"), "pipe: not in the manifest"),
        (lambda p: (_list(p, "pipe"), os.mkfifo(p / "pipe")), "pipe: not a regular file"),
        (lambda p: (_list(p, "sub"), (p / "sub").mkdir()), "; sub: missing"),
        (lambda p: (p / "manifest.json").unlink(), "no manifest.json"),
        (lambda p: (p / "manifest.json").write_text("{"), "not valid JSON"),
        (lambda p: _edit_manifest(p, schema_version=0), "schema_version is 0, this code reads 1"),
        (lambda p: _edit_manifest(p, split="VAL_TEST"), "edited after it was written"),
        (lambda p: _edit_manifest(p, kind="Other"), "edited after it was written"),
    ],
)
def test_every_damage_is_refused_and_named(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    _write(tmp_path / "x")
    damage(tmp_path / "x")
    with pytest.raises(ArtifactError) as caught:
        artifacts.verify_dir(tmp_path / "x", "Thing", split="VAL_CALIB")
    assert message in str(caught.value)


def test_all_differences_are_listed_in_one_error(tmp_path: Path) -> None:
    _write(tmp_path / "x")
    (tmp_path / "x/a.bin").unlink()
    (tmp_path / "x/deep/b.txt").write_text("BETA")
    (tmp_path / "x/new").write_text("")
    with pytest.raises(
        ArtifactError, match=r"3 difference.*a\.bin: missing; new: not in.*deep/b\.txt: sha256"
    ):
        artifacts.verify_dir(tmp_path / "x", "Thing", split="VAL_CALIB")


def test_another_split_is_a_leak_and_another_kind_an_error(tmp_path: Path) -> None:
    _write(tmp_path / "x", split="VAL_TEST")
    with pytest.raises(
        LeakageViolationError, match="holds split 'VAL_TEST', this step may only see 'VAL_CALIB'"
    ):
        artifacts.verify_dir(tmp_path / "x", "Thing", split="VAL_CALIB")
    with pytest.raises(
        LeakageViolationError, match="holds split 'VAL_TEST', a Thing belongs to none"
    ):
        artifacts.verify_dir(tmp_path / "x", "Thing")
    artifacts.verify_dir(tmp_path / "x", "Thing", split=artifacts.ANY_SPLIT)
    with pytest.raises(ArtifactError, match="kind is 'Thing', this step needs 'Other'"):
        artifacts.verify_dir(tmp_path / "x", "Other")


_ENTRY = {"bytes": 0, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": [1]}, "schema_version is [1]"),
        ({"schema_version": True}, "schema_version is True"),
        ({"kind": {"a": 1}}, "kind: "),
        ({"split": 3}, "split: "),
        ({"files": []}, "files: "),
        ({"files": {"a": 5}}, "files.a: "),
        ({"files": {"a": {"sha256": "0" * 64}}}, "instead of bytes and sha256"),
        ({"files": {"a": {**_ENTRY, "mode": 1}}}, "instead of bytes and sha256"),
        ({"files": {"a": {**_ENTRY, "bytes": True}}}, "bytes=True must be an integer"),
        ({"files": {"a": {**_ENTRY, "bytes": -1}}}, "bytes=-1 must be an integer"),
        ({"files": {"a": {**_ENTRY, "sha256": 5}}}, "sha256=5 must be 64 hexadecimal digits"),
        ({"files": {"a": {**_ENTRY, "sha256": "0" * 63}}}, "must be 64 hexadecimal digits"),
        ({"files": {"../a": _ENTRY}}, "leaves the artifact"),
        ({"files": {"a/../../b": _ENTRY}}, "leaves the artifact"),
        ({"files": {"/etc/passwd": _ENTRY}}, "leaves the artifact"),
        ({"files": {"a//b": _ENTRY}}, "leaves the artifact"),
        ({"files": {"./a": _ENTRY}}, "leaves the artifact"),
        ({"files": {"": _ENTRY}}, "leaves the artifact"),
        ({"files": {"a\nb": _ENTRY}}, "control character"),
        ({"files": {"a\x1b[2Jb": _ENTRY}}, "control character"),
        ({"files": {"a\0b": _ENTRY}}, "control character"),
        ({"files": {"a\\b": _ENTRY}}, "a backslash"),
        ({"files": {"a" * 2000: _ENTRY}}, "longer than 1024 bytes"),
        ({"files": {"manifest.json": _ENTRY}}, "cannot list itself"),
        ({"files": {"\ud800": _ENTRY}}, "half of a surrogate pair"),
        ({"inputs": {"a": 1}}, "inputs.a: "),
        ({"config": None}, "config: "),
        ({"more": 1}, "more: "),
    ],
)
def test_a_manifest_of_wrong_content_is_one_typed_line(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    _write(tmp_path / "x")
    file = tmp_path / "x/manifest.json"
    file.write_bytes(signed(json.loads(file.read_bytes()) | changes))

    with pytest.raises(ArtifactError) as caught:
        artifacts.read_manifest(tmp_path / "x")

    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[" * 100_000, b'{"schema_version": 1, "a": NaN}', b"[]", b"null", b"5"]
)
def test_a_manifest_of_any_bytes_is_one_typed_line(tmp_path: Path, data: bytes) -> None:
    _write(tmp_path / "x")
    (tmp_path / "x/manifest.json").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"manifest\.json: "):
        artifacts.verify_dir(tmp_path / "x", "Thing", split="VAL_CALIB")


def test_verification_of_an_artifact_deeper_than_recursion_goes(tmp_path: Path) -> None:
    _write(tmp_path / "x")
    descriptor = os.open(tmp_path / "x", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)

    try:
        with pytest.raises(ArtifactError, match="1 difference"):
            artifacts.verify_dir(tmp_path / "x", "Thing", split="VAL_CALIB")
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "x"], check=True)  # shutil's recursion is too deep


class _Counting:
    """hashlib.sha256 that also counts what it is given, in whichever thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n_bytes, self.threads = 0, set[str]()
        self._make, self._lock = hashlib.sha256, threading.Lock()
        monkeypatch.setattr(hashlib, "sha256", self)

    def __call__(self, data: bytes = b"") -> "_CountedHash":
        return _CountedHash(self, self._make(data))

    def add(self, n_bytes: int) -> None:
        with self._lock:
            self.n_bytes += n_bytes
            self.threads.add(threading.current_thread().name)


class _CountedHash:
    def __init__(self, counting: _Counting, inner: "hashlib._Hash") -> None:
        self._counting, self._inner = counting, inner

    def update(self, data: bytes) -> None:
        self._counting.add(len(data))
        self._inner.update(data)

    def hexdigest(self) -> str:
        return self._inner.hexdigest()


def _write_shards(path: Path, n_shards: int = 4, n_bytes: int = 3_000_000) -> artifacts.Manifest:
    with artifacts.writing(path, kind="Thing", step="test", config=Config()) as out:
        for number in range(n_shards):
            (out / f"shard-{number}").write_bytes(bytes([number]) * n_bytes)
    return artifacts.read_manifest(path)


def test_files_are_hashed_by_threads_with_the_digests_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "n_usable_cores", lambda: 3)
    counting = _Counting(monkeypatch)
    manifest = _write_shards(tmp_path / "x")
    assert counting.n_bytes == 12_000_000
    assert {name.rpartition("_")[0] for name in counting.threads} == {"hash"}
    artifacts.verify_dir(tmp_path / "x", "Thing")
    assert counting.n_bytes == 24_000_000

    for name, entry in manifest.files.items():
        expected = hashlib.new("sha256", (tmp_path / "x" / name).read_bytes()).hexdigest()
        assert entry["sha256"] == expected == artifacts.sha256_file(tmp_path / "x" / name)


def test_differences_stay_in_the_order_of_names_whichever_thread_is_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "n_usable_cores", lambda: 3)
    _write_shards(tmp_path / "x", n_shards=9, n_bytes=2_000_000)
    for name in ("shard-0", "shard-5"):
        (tmp_path / "x" / name).write_bytes(bytes(2_000_000 - 1) + b"x")
    (tmp_path / "x/shard-7").write_bytes(b"short")
    with pytest.raises(ArtifactError) as caught:
        artifacts.verify_dir(tmp_path / "x", "Thing")
    first, second, third = str(caught.value).split(": ", 2)[2].split("; ")
    assert first.startswith("shard-0: sha256 ")
    assert second.startswith("shard-5: sha256 ")
    assert third == "shard-7: 5 bytes, expected 2000000"


def test_an_interrupted_verification_does_not_hash_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal raises in the main thread, which waits for the threads."""
    monkeypatch.setattr(artifacts, "n_usable_cores", lambda: 2)
    _write_shards(tmp_path / "x", n_shards=2, n_bytes=64 * 2**20)
    counting = _Counting(monkeypatch)
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 0.005)
    with pytest.raises(KeyboardInterrupt):
        artifacts.verify_dir(tmp_path / "x", "Thing")
    assert counting.n_bytes < 64 * 2**20


def test_what_a_step_verified_is_not_hashed_again_where_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = _write_shards(tmp_path / "x")
    counting = _Counting(monkeypatch)
    monkeypatch.chdir(tmp_path)
    with artifacts.trusting({tmp_path / "x": verified.digest}):
        assert artifacts.verify_dir(tmp_path / "x", "Thing") == verified
        assert artifacts.verify_dir(Path("x"), "Thing") == verified
        assert counting.n_bytes == 0
        with pytest.raises(LeakageViolationError, match="may only see 'TRAIN'"):
            artifacts.verify_dir(tmp_path / "x", "Thing", split="TRAIN")
    artifacts.verify_dir(tmp_path / "x", "Thing")
    assert counting.n_bytes == 12_000_000


def test_another_artifact_in_the_place_of_a_trusted_one_is_refused(tmp_path: Path) -> None:
    verified = _write_shards(tmp_path / "x")
    _write_shards(tmp_path / "x", n_shards=3)
    with (
        artifacts.trusting({tmp_path / "x": verified.digest}),
        pytest.raises(ArtifactError, match="is not the artifact that this step verified"),
    ):
        artifacts.verify_dir(tmp_path / "x", "Thing")


def test_names_and_sizes_of_a_trusted_artifact_are_checked(tmp_path: Path) -> None:
    verified = _write_shards(tmp_path / "x")
    (tmp_path / "x/shard-0").write_bytes(b"short")
    (tmp_path / "x/extra").touch()
    with artifacts.trusting({tmp_path / "x": verified.digest}), pytest.raises(ArtifactError) as e:
        artifacts.verify_dir(tmp_path / "x", "Thing")
    assert "2 difference(s) from its manifest" in str(e.value)
