"""The registry's verbs against a real S3 server: what they print, record and refuse."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from components.shared.contracts.artifacts import write_json, writing
from components.shared.contracts.config import Config
from components.shared.contracts.environment import S3_VARIABLES, Variable
from components.shared.storage import StoreSettings
from components.shared.storage.registry import BundleRegistry, Draft, Provenance, SplitLineage
from pipelines.cli.app import main
from pipelines.cli.registry import login
from pipelines.local.store import REGISTRY, local_store
from pipelines.sources import commit
from tests.components.shared.storage.registry.receiver import receiving
from tests.fault_proxy import fault_proxy
from tests.pipelines.kubernetes_server import kubernetes_server
from tests.pipelines.run_objects import RunObjects
from tests.registries import name_registry, new_registry

LINEAGE = SplitLineage(name="photos-1", salt="5", fractions={"TRAIN": 0.7, "VAL_TEST": 0.3})
Command = Callable[..., str]


def _bundle(path: Path, version: str) -> Path:
    with writing(path, kind="Bundle", step="export_bundle", config=Config()) as staging:
        write_json(staging / "bundle.json", {"name": "roadwork", "version": version})
    return path


@pytest.fixture
def registry(s3: StoreSettings, monkeypatch: pytest.MonkeyPatch) -> BundleRegistry:
    """An empty registry, which the environment names."""
    found = new_registry(s3)
    name_registry(found, s3, monkeypatch)
    return found


@pytest.fixture
def digests(registry: BundleRegistry, tmp_path: Path) -> list[str]:
    """A first champion, the present one, and a bundle that was refused."""
    provenance = Provenance(lineage=LINEAGE, run="night 1", git_commit="abc")
    found = [
        registry.put_bundle(_bundle(tmp_path / "up" / version, version), provenance)
        for version in ("1.0", "2.0", "3.0")
    ]
    for digest, kind, promoted in zip(
        found, ("first", "comparison", "comparison"), (True, True, False), strict=True
    ):
        champion = registry.champion()
        number = None
        if champion is not None:
            claim = registry.claim(
                lineage=LINEAGE.name, challenger=digest, champion=champion.digest
            )
            number = claim.number
        draft = Draft(
            kind=kind,  # type: ignore[arg-type]
            promoted=promoted,
            challenger=digest,
            reason="MCC is higher by 0.041" if promoted else "MCC is not higher",
            lineage=LINEAGE.name,
            comparison=number,
        )
        registry.decide(draft, champion)
    return found


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a verb; return what it prints."""

    def run(*arguments: str) -> str:
        main(arguments)
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a verb that must end with exit code 42; return its one line."""

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 42
        printed = capsys.readouterr()
        assert printed.out == ""
        (line,) = printed.err.splitlines()
        return line

    return run


def _champion(registry: BundleRegistry) -> str:
    found = registry.champion()
    assert found is not None
    return found.digest


def test_the_champion_is_shown_with_its_history(digests: list[str], say: Command) -> None:
    first, second, third = (digest[:12] for digest in digests)
    lines = say("champion").splitlines()
    assert lines[0] == f"champion     {second}  roadwork 2.0"
    assert lines[2] == f"rollback to  {first}"
    history = "\n".join(lines[4:])
    assert f"refused {third} over {second}  (comparison 2 of lineage photos-1)" in history
    assert f"promoted {second} over {first}  (comparison 1 of lineage photos-1)" in history
    assert f"promoted {first}  (first champion)" in history
    assert "MCC is higher by 0.041" in history
    assert len(say("champion", "--limit", "1").splitlines()) == 7


def test_the_champion_as_a_document(digests: list[str], say: Command) -> None:
    found = json.loads(say("champion", "--json"))
    assert found["champion"] == digests[1]
    assert found["predecessors"] == digests[:1]
    assert [entry["promoted"] for entry in found["history"]] == [False, True, True]
    assert found["model"] == "roadwork 2.0"


def test_a_registry_without_a_champion_says_so(registry: BundleRegistry, say: Command) -> None:
    assert say("champion") == f"{registry.uri} has no champion yet\n"
    assert json.loads(say("champion", "--json"))["champion"] is None
    assert say("registry", "list") == f"{registry.uri} has no bundle\n"


def test_a_rollback_is_recorded_and_can_be_undone(
    registry: BundleRegistry, digests: list[str], say: Command
) -> None:
    printed = say("rollback", "--because", "wrong on wet roads")
    assert _champion(registry) == digests[0]
    assert f"promoted {digests[0][:12]} over {digests[1][:12]}  (rollback)" in printed
    assert f"{login()}: wrong on wet roads" in printed
    decision = json.loads(say("rollback", digests[1][:8], "--json"))
    assert _champion(registry) == digests[1]
    assert (decision["kind"], decision["number"], decision["over"]) == ("rollback", 5, 4)
    assert decision["git_commit"] == commit()
    assert decision["code_version"]


def test_a_rollback_is_announced_and_a_failure_is_a_warning(
    digests: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(Variable.WEBHOOK_SECRET, "a secret of twenty bytes")
    with receiving() as receiver:
        main(["rollback", "--on-promotion", receiver.url])
        receiver.statuses = [410]
        main(["rollback", digests[1], "--on-promotion", receiver.url])
    first, second = (json.loads(request.body)["data"] for request in receiver.requests)
    assert (first["decision"]["kind"], first["model_name"]) == ("rollback", "roadwork")
    assert first["decision"]["challenger"] == digests[0]
    assert second["decision"]["challenger"] == digests[1]
    assert "warning: on_promotion: 127.0.0.1:" in capsys.readouterr().err


def test_bundles_are_listed_with_what_was_decided(digests: list[str], say: Command) -> None:
    lines = {line[:12]: line for line in say("registry", "list").splitlines()}
    states = {digest: re.split(r" {2,}", line)[3] for digest, line in lines.items()}
    first, second, third = (digest[:12] for digest in digests)
    assert states == {first: "former champion", second: "champion", third: "refused"}
    assert lines[second].endswith("roadwork 2.0")
    found = json.loads(say("registry", "list", "--json"))
    assert {entry["digest"] for entry in found} == set(digests)


def test_a_bundle_is_shown_with_where_it_comes_from(digests: list[str], say: Command) -> None:
    printed = say("registry", "show", digests[1][:10])
    assert f"bundle    {digests[1]}" in printed
    assert "made by   night 1" in printed
    assert "lineage   photos-1, salt '5', TRAIN 0.7, VAL_TEST 0.3" in printed
    assert printed.count("over") == 2
    document = json.loads(say("registry", "show", digests[1][:10], "--json"))
    assert [entry["number"] for entry in document["decisions"]] == [3, 2]
    assert document["provenance"]["git_commit"] == "abc"


def test_the_champion_or_another_bundle_is_downloaded(
    digests: list[str], say: Command, refused: Command, tmp_path: Path
) -> None:
    say("registry", "download", "--output", str(tmp_path / "down"))
    document = json.loads((tmp_path / "down" / "bundle.json").read_text())
    assert document["version"] == "2.0"
    other = tmp_path / "a" / "b"
    found = json.loads(
        say("registry", "download", digests[0][:9], "--output", str(other), "--json")
    )
    assert found == {"digest": digests[0], "path": str(other)}
    line = refused("registry", "download", "--output", str(other))
    assert "exists; give --output a folder that does not" in line


def test_the_collection_removes_what_was_refused_and_says_so_before(
    registry: BundleRegistry, digests: list[str], say: Command, tmp_path: Path
) -> None:
    left = registry.put_bundle(_bundle(tmp_path / "undecided", "4.0"))
    planned = say("registry", "gc", "--dry-run")
    assert planned.startswith(digests[2][:12])
    assert "1 bundles, 0.0 MB would be removed" in planned
    assert len(registry.bundles()) == 4
    assert json.loads(say("registry", "gc", "--json"))["removed"][0]["digest"] == digests[2]
    assert "0 bundles" in say("registry", "gc")
    assert {entry.digest for entry in registry.bundles()} == {*digests[:2], left}
    assert "1 bundles" in say("registry", "gc", "--undecided")
    assert len(list(registry.decisions())) == 3


def test_the_collection_keeps_what_it_is_told_to(
    registry: BundleRegistry, digests: list[str], say: Command, refused: Command, tmp_path: Path
) -> None:
    """A canary serves a challenger by its digest, also one that was refused meanwhile."""
    assert "none of the bundles" in refused("registry", "gc", "--keep", "0123456789")
    other = registry.put_bundle(_bundle(tmp_path / "undecided", "4.0"))
    keep = ("--keep", digests[2][:12], "--keep", other[:12])
    assert "0 bundles" in say("registry", "gc", "--undecided", "--dry-run", *keep)
    assert "0 bundles" in say("registry", "gc", "--undecided", *keep)
    assert {entry.digest for entry in registry.bundles()} == {*digests, other}
    assert "1 bundles" in say("registry", "gc", "--keep", other)
    assert {entry.digest for entry in registry.bundles()} == {*digests[:2], other}


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "rollback, no champion": (("rollback",), "has no champion; there is nothing to go back from"),
    "download, no champion": (("registry", "download"), "has no champion; name a bundle"),
    "gc, no champion": (("registry", "gc"), "has no champion: nothing in it was decided yet"),
    "unknown bundle": (("registry", "show", "0123456789"), "none of the bundles"),
    "no digest": (("registry", "show", "roadwork"), "first 6 to 64 hex digits"),
    "two registries": (
        ("champion", "--bundle-registry", "s3://a/b", "--runs", "runs"),
        "give --bundle-registry or --runs, not both",
    ),
    "no embedded store": (("champion", "--runs", "nowhere"), "nowhere has no embedded store"),
    "no address": (("champion", "--bundle-registry", "registry"), "not of the form s3://"),
    "no secret": (
        ("rollback", "--on-promotion", "https://example.com/hook"),
        "needs STREETVISION_WEBHOOK_SECRET",
    ),
    "no receiver": (("rollback", "--on-promotion", "hook"), "must be http://host/path"),
    "no Model Registry": (
        ("rollback", "--model-registry-url", "registry"),
        "must be http://host:8080 or https://host",
    ),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_input_is_one_line(registry: BundleRegistry, refused: Command, case: str) -> None:
    arguments, message = BAD[case]
    assert message in refused(*arguments)
    assert registry.root.objects() == []


def test_a_rollback_to_what_was_never_the_champion_is_refused(
    digests: list[str], refused: Command
) -> None:
    assert "was never the champion" in refused("rollback", digests[2][:12])
    assert "is the champion; name an earlier one" in refused("rollback", digests[1][:12])


def test_a_first_champion_has_nothing_before_it(
    registry: BundleRegistry, refused: Command, tmp_path: Path
) -> None:
    digest = registry.put_bundle(_bundle(tmp_path / "up", "1.0"))
    registry.decide(Draft(kind="first", promoted=True, challenger=digest, reason="test"), over=None)
    assert "no champion was before the present one" in refused("rollback")


def test_a_store_without_conditional_writes_is_refused(
    s3: StoreSettings, digests: list[str], refused: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fault_proxy(s3.endpoint) as proxy:
        proxy.ignore_conditions = True
        proxied = dataclasses.replace(s3, endpoint=proxy.endpoint)
        for name, value in proxied.to_environment().items():
            monkeypatch.setenv(name, value)
        for arguments in (("rollback",), ("registry", "gc")):
            assert "ignores If-None-Match" in refused(*arguments)


def test_no_registry_is_named(
    s3: StoreSettings, refused: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(Variable.BUNDLE_REGISTRY, raising=False)
    monkeypatch.delenv(Variable.KFP_ENDPOINT, raising=False)
    monkeypatch.setenv(Variable.KUBECONFIG, str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "give --bundle-registry s3://bucket/prefix or --runs FOLDER" in refused("champion")


def test_the_cluster_says_where_registry_and_store_are(
    s3: StoreSettings,
    say: Command,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Kubernetes alone is asked; the store's own address is one inside the cluster."""
    registry = new_registry(s3)
    digest = registry.put_bundle(_bundle(tmp_path / "up", "1.0"))
    for name in (*S3_VARIABLES, Variable.BUNDLE_REGISTRY, Variable.KFP_ENDPOINT):
        monkeypatch.delenv(name, raising=False)
    with kubernetes_server() as kubernetes:
        objects = RunObjects(kubernetes, "kubeflow")
        settings = {
            Variable.S3_ENDPOINT: "seaweedfs:9000",
            Variable.S3_SECURE: "false",
            Variable.BUNDLE_REGISTRY: registry.uri,
        }
        objects.add_config_map("streetvision-store", settings)
        objects.add_secret(
            "mlpipeline-minio-artifact", {"accesskey": s3.access_key, "secretkey": s3.secret_key}
        )
        monkeypatch.setenv(Variable.KUBECONFIG, objects.kubeconfig(tmp_path / "config"))
        printed = say("registry", "list", "--store-endpoint", s3.endpoint)
    assert printed.startswith(digest[:12])
    assert s3.secret_key not in printed


def test_the_embedded_store_of_local_runs_has_a_registry(
    say: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in S3_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with local_store(tmp_path / "runs" / "store") as store:
        bundle = _bundle(tmp_path / "up", "1.0")
        assert store.register(bundle).startswith(f"{REGISTRY}/bundles/")

    listed = say("registry", "list", "--runs", str(tmp_path / "runs"), "--json")
    assert [entry["model"] for entry in json.loads(listed)] == ["roadwork 1.0"]
