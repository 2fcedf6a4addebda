"""Where the store's address and credentials come from."""

from pathlib import Path

import pytest

from components.shared.contracts.errors import ConfigError
from components.shared.contracts.redaction import redacted
from components.shared.storage import StoreSettings

COMPLETE = {
    "STREETVISION_S3_ENDPOINT": "minio.example:9000",
    "STREETVISION_S3_ACCESS_KEY": "planted-access",
    "STREETVISION_S3_SECRET_KEY": "planted-secret",
}


def test_reads_the_environment_and_is_secure_by_default() -> None:
    settings = StoreSettings.from_environment(COMPLETE)
    assert (settings.endpoint, settings.access_key, settings.secret_key) == tuple(COMPLETE.values())
    assert settings.secure
    assert settings.session_token is None


def test_settings_survive_the_way_through_a_child_environment(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    more = {
        "SESSION_TOKEN": "t",
        "REGION": "eu-west-1",
        "SECURE": "false",
        "CA_FILE": str(tmp_path / "ca.pem"),
    }
    settings = StoreSettings.from_environment(
        COMPLETE | {f"STREETVISION_S3_{k}": v for k, v in more.items()}
    )
    assert StoreSettings.from_environment(settings.to_environment()) == settings


def test_a_mounted_secret_fills_what_the_environment_lacks(tmp_path: Path) -> None:
    (tmp_path / "STREETVISION_S3_ACCESS_KEY").write_text("from-file\n")
    (tmp_path / "STREETVISION_S3_SECRET_KEY").write_text("from-file-too\n")
    environment = {"STREETVISION_S3_ENDPOINT": "e:1", "STREETVISION_S3_SECRET_DIR": str(tmp_path)}
    settings = StoreSettings.from_environment(
        environment | {"STREETVISION_S3_ACCESS_KEY": "from-environment"}
    )
    assert (settings.access_key, settings.secret_key) == ("from-environment", "from-file-too")


def test_every_missing_variable_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        StoreSettings.from_environment({})
    assert all(name in str(caught.value) for name in COMPLETE)
    assert "STREETVISION_S3_SECRET_DIR" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ENDPOINT", "https://minio:9000", "without scheme"),
        ("ENDPOINT", "minio:9000/bucket", "without scheme, user information and path"),
        ("ENDPOINT", "AKIAKEY:S3CRETPW@minio:9000", "STREETVISION_S3_SECRET_KEY"),
        ("SECURE", "maybe", "true or false"),
        ("SECURE", "S3CRETPW", "true or false"),
        ("REGION", "S3CRET/PW+", "such as us-east-1"),
        ("CA_FILE", "/nowhere/ca.pem", "names no file"),
        ("CA_FILE", "S3CRETPW" * 1000, "names no file"),
        ("SECRET_DIR", "/nowhere", "names no directory"),
        ("SECRET_DIR", "S3CRETPW" * 1000, "names no directory"),
    ],
)
def test_a_wrong_variable_is_named_with_the_fix_and_without_its_value(
    name: str, value: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=f"STREETVISION_S3_{name} .*{says}") as caught:
        StoreSettings.from_environment(COMPLETE | {f"STREETVISION_S3_{name}": value})
    assert value not in str(caught.value)


@pytest.mark.parametrize("name", ["ACCESS_KEY", "SECRET_KEY", "SESSION_TOKEN"])
@pytest.mark.parametrize("value", ["S3CRET\nX: y", "S3CRET PW", "S3CRET\tPW", "S3CRÉT€", "a\x00b"])
def test_a_credential_that_no_header_carries_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"STREETVISION_S3_{name} has a line break") as caught:
        StoreSettings.from_environment(COMPLETE | {f"STREETVISION_S3_{name}": value})
    assert "S3CR" not in str(caught.value)


def test_a_mounted_credential_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "STREETVISION_S3_SECRET_KEY").write_bytes(b"S3CRET\xff")
    environment = COMPLETE | {"STREETVISION_S3_SECRET_DIR": str(tmp_path)}
    del environment["STREETVISION_S3_SECRET_KEY"]
    with pytest.raises(ConfigError, match="STREETVISION_S3_SECRET_KEY has a line break"):
        StoreSettings.from_environment(environment)


def test_credentials_of_a_store_are_hidden_in_every_text() -> None:
    StoreSettings(endpoint="e:1", access_key="k", secret_key="of-this-test-alone")
    assert redacted("x of-this-test-\n  alone y") == "x *** y"


def test_credentials_are_neither_printed_nor_part_of_an_error() -> None:
    assert "planted" not in repr(StoreSettings.from_environment(COMPLETE))
    with pytest.raises(ConfigError) as caught:
        StoreSettings.from_environment(COMPLETE | {"STREETVISION_S3_SECURE": "maybe"})
    assert "planted" not in str(caught.value)
