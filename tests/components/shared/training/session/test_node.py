"""The entry of a node, with a real object store and without torchrun."""

import hashlib
import json
from pathlib import Path

import pytest

from components.shared.contracts.artifacts import writing
from components.shared.contracts.config import Config
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ArtifactError, DataError, TransientError
from components.shared.storage import Store, StoreSettings
from components.shared.storage.artifacts import upload_artifact
from components.shared.training.launch.failures import Failure
from components.shared.training.launch.torchrun import Machine
from components.shared.training.session import node


class Place:
    """What a step has put into the store for a node, whose processes are replaced."""

    def __init__(
        self, tmp_path: Path, store: Store, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.folder, self.store, self.bucket, self.patch = tmp_path, store, bucket, monkeypatch
        with writing(tmp_path / "data", kind="Thing", step="test", config=Config()) as out:
            (out / "a").write_text("a")
        key = "nodes/k/inputs/data"
        manifest = upload_artifact(store, tmp_path / "data", bucket, key, kind="Thing")
        entry = {"kind": "Thing", "digest": manifest.digest, "key": key}
        self.job = {
            "config": {},
            "inputs": {"data": entry},
            "n_processes": 1,
            "hang_seconds": 240.0,
        }
        self.failure: Failure | None = None
        self.machine: Machine | None = None
        monkeypatch.setattr(node, "run_processes", self._processes)
        monkeypatch.setenv(Variable.TERMINATION_LOG, str(tmp_path / "message"))

    def _processes(self, module: str, job: Path, **options: object) -> Failure | None:
        document = json.loads(job.read_text())
        assert (Path(document["paths"]["data"]) / "a").read_text() == "a"
        assert isinstance(options["machine"], Machine)
        self.machine = options["machine"]
        (Path(document["paths"]["work"]) / "result").write_text(module)
        return self.failure

    def run(self, rank: int = 0, digest: str = "") -> tuple[object, dict[str, object]]:
        """Exit code and termination message."""
        data = json.dumps(self.job).encode()
        self.store.put_if_absent(self.bucket, "nodes/k/start/job.json", data)
        variables = {"RANK": rank, "COUNT": 2}
        self.patch.setenv(Variable.NODE_RANK, str(variables["RANK"]))
        self.patch.setenv(Variable.NODE_COUNT, str(variables["COUNT"]))
        self.patch.setenv(Variable.MASTER_ADDRESS, "first")
        self.patch.setenv(Variable.MASTER_PORT, "29500")
        digest = digest or hashlib.sha256(data).hexdigest()
        address = f"s3://{self.bucket}/nodes/k/start"
        self.patch.setattr("sys.argv", ["node", "module", address, digest])
        code: object = 0
        try:
            node.main()
        except SystemExit as end:
            code = end.code
        return code, json.loads((self.folder / "message").read_text())


@pytest.fixture
def place(tmp_path: Path, s3: StoreSettings, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    return Place(tmp_path, Store(s3), bucket, monkeypatch)


def test_node_0_stores_what_its_main_rank_left_and_names_its_digest(place: Place) -> None:
    code, message = place.run()
    assert code == 0
    keys = [item.key for item in place.store.list(place.bucket, "nodes/k/start/results")]
    assert keys == ["nodes/k/start/results/manifest.json", "nodes/k/start/results/result"]
    assert len(str(message["results"])) == 64
    assert place.machine == Machine(rank=0, count=2, address="first", port=29500, name="start")


def test_another_node_stores_nothing(place: Place) -> None:
    assert place.run(rank=1) == (0, {})
    assert not place.store.list(place.bucket, "nodes/k/start/results")


def test_a_job_or_an_input_that_the_step_has_not_written_is_refused(place: Place) -> None:
    code, message = place.run(digest="0" * 64)
    assert code == ArtifactError.exit_code
    assert "is not what the step has written" in str(message["message"])
    place.store.delete(place.bucket, "nodes/k/start/job.json")
    place.job["inputs"]["data"]["digest"] = "0" * 64  # type: ignore[index]
    code, message = place.run()
    assert code == ArtifactError.exit_code
    assert message["class"] == "ArtifactError"
    assert "is not the input of the step" in str(message["message"])


def test_a_failure_is_left_for_the_step_and_one_for_want_of_a_peer_ends_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(node.time, "sleep", waited.append)
    place.failure = Failure(DataError("é" * 5000))
    code, message = place.run()
    assert code == DataError.exit_code
    assert (message["class"], message["is_cause"], waited) == ("DataError", True, [])
    assert (place.folder / "message").stat().st_size < 4096
    place.failure = Failure(TransientError("rank 0 failed"), is_cause=False)
    code, message = place.run()
    assert (code, message["is_cause"], waited) == (1, False, [15.0])
