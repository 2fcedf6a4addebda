"""Profiles: the shipped ones, a user's own file, and refusals that name the field."""

from pathlib import Path

import pytest
from kubernetes.utils import parse_quantity

from components.shared.contracts.errors import ConfigError
from pipelines.resources import (
    OWN_STORE_SECRETS,
    PROFILE_NAMES,
    PROFILES,
    ROLES,
    TEAM_SECRET,
    load_profile,
    retry_window_seconds,
)

OWN = """
training:
  {cpu_request: 1, cpu_limit: 2.5, memory_request: 2Gi, memory_limit: 4Gi, shared_memory: 1Gi,
   scratch: 5Gi}
light: {cpu_request: 50m}
secrets: {store: team-store, store_access_key: key, image_pull: [registry]}
image_pull_policy: Always
n_retries: 1
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(OWN)
    return file


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_light_steps_ask_for_little(name: str) -> None:
    profile = load_profile(name)
    for kind in (profile.light, profile.ingest, profile.heavy):
        assert parse_quantity("0.1") <= parse_quantity(kind.cpu_request) <= parse_quantity("0.5")


def test_the_demo_fits_one_node_of_two_cpus_and_four_gibibytes() -> None:
    profile = load_profile("cpu")
    assert (
        parse_quantity(profile.training.cpu_request) + 2 * parse_quantity(profile.light.cpu_request)
        <= 1
    )
    assert (
        parse_quantity(profile.training.memory_request)
        + parse_quantity(profile.heavy.memory_request)
        <= 2 * 2**30
    )


def test_a_users_own_file_gives_numbers_where_kubernetes_has_text(own: Path) -> None:
    profile = load_profile(str(own))
    assert (profile.name, profile.training.cpu_request, profile.training.cpu_limit) == (
        "mine",
        "1",
        "2.5",
    )
    assert (profile.light.cpu_request, profile.light.memory_limit) == ("50m", "8Gi")
    assert (profile.secrets.store, profile.secrets.store_secret_key) == ("team-store", "secretkey")
    assert (profile.n_retries, profile.image_pull_policy, profile.secrets.image_pull) == (
        1,
        "Always",
        ("registry",),
    )


def test_options_of_the_command_line_win_over_the_profile(own: Path) -> None:
    profile = load_profile(str(own), queue="team", store_secret="team-s3")
    assert (profile.queue, profile.secrets.store, profile.secrets.store_access_key) == (
        "team",
        "team-s3",
        "key",
    )
    assert profile.secrets.of_steps() == ("team-s3",)


def test_a_store_of_its_own_has_a_secret_for_each_role(own: Path) -> None:
    profile = load_profile(str(own), own_store=True)
    assert {role: profile.secrets.of(role) for role in ROLES} == OWN_STORE_SECRETS
    assert TEAM_SECRET not in profile.secrets.of_steps()
    with pytest.raises(ConfigError, match="exclude each other"):
        load_profile("cpu", own_store=True, store_secret="team-s3")


def test_a_file_may_name_the_secret_of_one_role(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("training: {}\nsecrets: {store: all, checkpoints: ours}\n")
    assert load_profile(str(file)).secrets.of_steps() == ("all", "ours")
    assert load_profile(str(file), store_secret="x").secrets.of_steps() == ("x",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "training: {memory_limit: 96 GB}",
            "training: memory_limit='96 GB' must be a Kubernetes quantity",
        ),
        (
            "training: {cpu_limits: 1}",
            "training: unknown key 'cpu_limits', did you mean 'cpu_limit'?",
        ),
        ("training: {gpus: two}", "training: gpus='two' must be int, got str"),
        (
            "training: {cpu_request: 8, cpu_limit: 4}",
            "cpu_request='8' must not exceed cpu_limit='4'",
        ),
        ("training: {tolerations: [{keys: x}]}", "tolerations have unknown field(s) ['keys']"),
        ("light: {}", "training is missing"),
        ("training: {}\nretries: 1", "unknown key 'retries', did you mean 'n_retries'?"),
        ("training: {}\nn_retries: -1", "n_retries=-1 must be >= 0"),
        ("training: {}\nn_retries: many", "n_retries='many' must be int"),
        (
            "training: {}\nimage_pull_policy: Sometimes",
            "image_pull_policy='Sometimes' must be one of Always",
        ),
        ("- a", "must be a mapping of names to values"),
        ("training: [", "profile"),
    ],
)
def test_a_wrong_profile_is_refused_with_file_field_and_value(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_profile(str(file))
    assert message in str(caught.value)
    assert "wrong.yaml" in str(caught.value)


def test_an_unknown_name_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"'a600' is neither of a6000x1, a6000x2, cpu nor a \.yaml file"
    ):
        load_profile("a600")
    with pytest.raises(ConfigError, match="No such file"):
        load_profile(str(tmp_path / "none.yaml"))


def test_the_retry_window_covers_all_attempts_and_the_waits_between_them() -> None:
    assert retry_window_seconds(0, 100) == 100
    assert retry_window_seconds(3, 7200) == 4 * 7200 + 30 + 60 + 120


def test_shipped_profiles_explain_themselves() -> None:
    for name in PROFILE_NAMES:
        assert (PROFILES / f"{name}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize("queue", ["Bad_Name!", "-a", "a" * 64, "a\nb", "a b"])
def test_a_queue_that_no_label_can_name_is_refused_before_a_cluster_is_asked(queue: str) -> None:
    with pytest.raises(ConfigError, match=r"queue=.* must be lower case letters"):
        load_profile("cpu", queue=queue)
    assert load_profile("cpu", queue="team-a.training").queue == "team-a.training"


def test_a_profile_of_any_bytes_is_one_typed_line(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    for data in (b"\xff", b"[" * 2000, b"training: &a {}", b"{training: {}, training: {}}", b"5"):
        file.write_bytes(data)
        with pytest.raises(ConfigError, match=r"own\.yaml"):
            load_profile(str(file))
