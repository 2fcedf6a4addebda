"""The registry's address comes from an option, else from the environment."""

import pytest

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.storage import StoreSettings
from components.shared.storage.registry import open_registry, registry_uri


def test_an_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Variable.BUNDLE_REGISTRY, "s3://a/b")
    assert registry_uri() == "s3://a/b"
    assert registry_uri("s3://c/d") == "s3://c/d"
    monkeypatch.delenv(Variable.BUNDLE_REGISTRY)
    with pytest.raises(ConfigError, match="STREETVISION_BUNDLE_REGISTRY to s3://bucket/prefix"):
        registry_uri()


@pytest.mark.parametrize("uri", ["registry", "http://host/x", "s3://", "s3://key:secret@host/x"])
def test_another_address_is_refused(
    s3: StoreSettings, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as raised:
        open_registry(uri)
    assert "secret@" not in str(raised.value)


def test_a_trailing_slash_names_the_same_registry(
    s3: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    assert open_registry("s3://bucket/a/b/").uri == "s3://bucket/a/b"
    assert open_registry("s3://bucket").uri == "s3://bucket"
