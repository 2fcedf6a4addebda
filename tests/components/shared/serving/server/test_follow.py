"""Following: a new champion is served, a bad one is not, and neither stops the server."""

import asyncio
from typing import Any

import pytest

from components.shared.contracts.errors import ArtifactError, TransientError
from components.shared.serving.server.deployment import Deployment, Loaded
from components.shared.serving.server.follow import Follower
from components.shared.serving.server.limits import Limits
from components.shared.storage.registry import Champion
from tests.serving_server import FakeEngine, loaded, photo

OLD, NEW, BAD = "a" * 64, "b" * 64, "c" * 64


class _Registry:
    """Stands for `BundleRegistry`; test_command.py follows a real one in a real S3 server."""

    uri = "s3://bucket/registry"

    def __init__(self) -> None:
        self.digest: str | None = OLD
        self.is_down = False

    def champion(self) -> Any:
        if self.is_down:
            raise TransientError("the store does not answer")
        return None if self.digest is None else _Champion(self.digest)


class _Champion:
    def __init__(self, digest: str) -> None:
        self.digest = digest


class _Loader:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, registry: Any, digest: str) -> Loaded:
        self.asked.append(digest)
        if digest == BAD:
            raise ArtifactError("bundle.json: damaged")
        return loaded(FakeEngine(), digest)


def _follower(registry: _Registry, loader: _Loader, deployment: Any = None) -> Follower:
    return Follower(registry, deployment, loader, 0.01)  # type: ignore[arg-type]


def test_the_champion_that_answers_is_not_loaded_again() -> None:
    assert Champion.__dataclass_fields__.keys() >= {"digest"}
    registry, loader = _Registry(), _Loader()
    follower = _follower(registry, loader)
    assert follower.newer(OLD) is None
    registry.digest = None
    assert follower.newer(OLD) is None
    assert loader.asked == []


def test_a_store_that_is_down_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    registry, loader = _Registry(), _Loader()
    registry.is_down = True
    follower = _follower(registry, loader)
    assert follower.newer(OLD) is None
    said = capsys.readouterr().err
    assert said == "champion: s3://bucket/registry is not served: the store does not answer\n"
    registry.is_down, registry.digest = False, NEW
    found = follower.newer(OLD)
    assert found is not None
    assert found.digest == NEW


def test_a_damaged_champion_is_said_once_and_not_loaded_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry, loader = _Registry(), _Loader()
    registry.digest = BAD
    follower = _follower(registry, loader)
    assert follower.newer(OLD) is None
    assert follower.newer(OLD) is None
    assert loader.asked == [BAD]
    assert capsys.readouterr().err.count("bundle.json: damaged") == 1
    registry.digest = NEW
    assert follower.newer(OLD) is not None


def test_requests_are_answered_while_champions_change() -> None:
    registry, loader = _Registry(), _Loader()

    async def scenario() -> None:
        deployment = Deployment(loaded(digest=OLD), Limits())
        following = asyncio.create_task(_follower(registry, loader, deployment).run())
        for digest in (NEW, BAD, OLD):
            registry.digest = digest
            for grey in range(20):
                (result,) = await deployment.results([photo(grey)])
                assert round(result.probability * 255) == grey
                await asyncio.sleep(0.005)
        while deployment.current.digest != OLD or NEW not in loader.asked:
            await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await deployment.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert loader.asked == [NEW, BAD, OLD]
