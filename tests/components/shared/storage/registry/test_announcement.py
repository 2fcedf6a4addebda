"""A promotion is told to a webhook; what fails is a warning, what cannot work is refused before."""

import json

import pytest

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.storage.registry import BundleRegistry, Decision, Draft, webhook
from components.shared.storage.registry.announcement import Announcement
from tests.components.shared.storage.registry.receiver import receiving

SECRET = "a secret of twenty bytes"


@pytest.fixture
def decision(registry: BundleRegistry, digests: list[str]) -> Decision:
    draft = Draft(
        kind="first", promoted=True, challenger=digests[0], reason="test", evidence={"mcc": 0.5}
    )
    return registry.decide(draft, over=None)


def test_the_record_is_posted_and_signed(
    registry: BundleRegistry, decision: Decision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(Variable.WEBHOOK_SECRET, SECRET)
    with receiving() as receiver:
        told = Announcement.checked(receiver.url)
        assert told.send(decision, registry, "roadwork") == []
    (request,) = receiver.requests
    document = json.loads(request.body)
    assert document["type"] == "bundle.promoted"
    data = document["data"]
    assert data["decision"]["challenger"] == decision.challenger
    assert data["decision"]["evidence"] == {"mcc": 0.5}
    assert data["bundle"] == f"{registry.uri}/bundles/{decision.challenger}"
    assert data["model_name"] == "roadwork"
    assert request.headers["webhook-id"] == f"decision-1-{decision.code}"
    seconds = int(request.headers["webhook-timestamp"])
    expected = webhook.signature(
        SECRET.encode(), request.headers["webhook-id"], seconds, request.body
    )
    assert request.headers["webhook-signature"] == expected
    assert SECRET not in repr(told)
    assert SECRET.encode() not in request.body


def test_a_receiver_that_refuses_is_a_warning(
    registry: BundleRegistry, decision: Decision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(Variable.WEBHOOK_SECRET, SECRET)
    with receiving() as receiver:
        receiver.statuses = [403]
        (warning,) = Announcement.checked(receiver.url).send(decision, registry, "roadwork")
    assert warning.startswith("on_promotion: 127.0.0.1:")
    assert warning.endswith("answered HTTP 403")


def test_what_cannot_be_told_is_refused_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(Variable.WEBHOOK_SECRET, raising=False)
    with pytest.raises(ConfigError, match="needs STREETVISION_WEBHOOK_SECRET"):
        Announcement.checked("https://example.com/hook")
    with pytest.raises(ConfigError, match="model_registry_url"):
        Announcement.checked(model_registry_url="model-registry:8080")
    assert Announcement.checked() == Announcement()


def test_nobody_is_told_where_nobody_is_named(registry: BundleRegistry, decision: Decision) -> None:
    assert Announcement().send(decision, registry, "roadwork") == []
