"""The object store of each mode: the steps' settings, an external service, MinIO's set-up job."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from minio.commonconfig import Filter
from minio.lifecycleconfig import Expiration, LifecycleConfig, NoncurrentVersionExpiration, Rule

from components.shared.contracts.environment import Variable
from components.shared.storage import StoreSettings
from pipelines.resources import STORE_CONFIG, STORE_VARIABLES, load_profile
from tests.manifests.conftest import (
    MANIFESTS,
    Object,
    Variant,
    named,
    parse,
    render,
    switch_options,
)
from tests.manifests.launcher import store_session

MINIO = MANIFESTS / "components/minio"
Rendered = Callable[..., list[Object]]


def test_the_steps_settings_are_there_by_the_names_that_they_are_read_by(
    objects: list[Object],
) -> None:
    data = named(objects, "ConfigMap")[STORE_CONFIG]["data"]
    assert data.keys() - {Variable.PIPELINE_ROOT} == {
        *STORE_VARIABLES,
        Variable.CHECKPOINT_STORE,
        Variable.LINEAGES,
    }
    secrets = {"STREETVISION_S3_ACCESS_KEY": "access", "STREETVISION_S3_SECRET_KEY": "secret"}
    settings = StoreSettings.from_environment(data | secrets)
    assert settings.endpoint.rpartition(":")[2].isdigit()
    assert data[Variable.CHECKPOINT_STORE].startswith("s3://")
    # A run is given the root of a store of the pipeline's own; without one it goes below KFP's.
    own = not data[Variable.CHECKPOINT_STORE].startswith("s3://mlpipeline/")
    assert data.get(Variable.PIPELINE_ROOT, "").startswith("minio://") == own


def test_single_user_mode_uses_kfps_own_store_by_default(
    rendered: Rendered, kfp_objects: dict[str, set[str]]
) -> None:
    """Bucket, root and Secret's keys are of backend/src/v2/config/env.go.

    Names are KFP's published objects.
    """
    objects = rendered(Variant("single-user", frozenset()))
    assert [item["kind"] for item in objects] == [
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "ConfigMap",
    ]
    data = named(objects, "ConfigMap")[STORE_CONFIG]["data"]
    service = data["STREETVISION_S3_ENDPOINT"].partition(":")[0]
    secrets = load_profile("a6000x2").secrets
    assert {f"Service/kubeflow/{service}", f"Secret/kubeflow/{secrets.store}"} <= kfp_objects[
        "single-user"
    ]
    assert (secrets.store_access_key, secrets.store_secret_key) == ("accesskey", "secretkey")
    assert Variable.PIPELINE_ROOT not in data, "KFP's own root, whatever it is"
    assert data[Variable.CHECKPOINT_STORE].startswith("s3://mlpipeline/")


def test_secrets_have_the_keys_that_a_profile_names(objects: list[Object]) -> None:
    secrets = load_profile("a6000x2", store_secret="streetvision-s3").secrets
    for name, wanted in (
        (secrets.store, {secrets.store_access_key, secrets.store_secret_key}),
        (secrets.hub, {"HF_TOKEN"}),
    ):
        if name in named(objects, "Secret"):
            assert named(objects, "Secret")[name]["data"].keys() == wanted


@pytest.mark.parametrize("mode", ["single-user", "profile"])
def test_address_port_and_bucket_of_an_external_store_stand_in_one_place(
    manifests: Path, tmp_path: Path, mode: str
) -> None:
    copy = tmp_path / "manifests"
    shutil.copytree(manifests, copy)
    settings = copy / "components/external-s3/settings/settings.yaml"
    text = settings.read_text()
    for old, new in (
        ("s3.example.com:443", "rgw.lab.example.org:7480"),
        ("bucket: streetvision", "bucket: road-team"),
        ("us-east-1", "eu-lab-2"),
        ('secure: "true"', 'secure: "false"'),
        ('disableSSL: "false"', 'disableSSL: "true"'),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    settings.write_text(text)
    overlay = copy / "overlays" / mode
    switch_options(overlay, frozenset({"external-s3"}))

    objects = parse(render(overlay))
    assert named(objects, "ConfigMap")[STORE_CONFIG]["data"] == {
        "STREETVISION_S3_ENDPOINT": "rgw.lab.example.org:7480",
        "STREETVISION_S3_SECURE": "false",
        "STREETVISION_S3_REGION": "eu-lab-2",
        "STREETVISION_CHECKPOINT_STORE": "s3://road-team/checkpoints",
        "STREETVISION_LINEAGES": "s3://road-team/lineages",
        Variable.PIPELINE_ROOT: "minio://road-team/runs",
    }
    launcher = named(
        objects if mode == "profile" else parse(render(overlay / "launcher")), "ConfigMap"
    )["kfp-launcher"]
    session = store_session(launcher["data"]["providers"], "minio://road-team/runs")
    assert (session["endpoint"], session["region"], session["disableSSL"]) == (
        "rgw.lab.example.org:7480",
        "eu-lab-2",
        True,
    )
    if mode == "profile":
        policy = named(objects, "NetworkPolicy")["streetvision-steps"]["spec"]
        assert policy["egress"][0]["ports"] == [{"protocol": "TCP", "port": 7480}]
        assert launcher["data"]["defaultPipelineRoot"] == "minio://road-team/runs"


def test_no_rule_is_set_on_a_bucket_that_is_not_the_pipelines_own(
    objects: list[Object], variant: Variant
) -> None:
    if "minio" not in variant.options:
        assert not named(objects, "Job")


def test_checkpoints_expire_with_their_old_versions_and_nothing_else_does() -> None:
    """The client of the store takes the rules as `mc ilm rule import` reads them: AWS's names in
    JSON.
    """
    config = LifecycleConfig(
        [_rule(item) for item in json.loads((MINIO / "lifecycle.json").read_text())["Rules"]]
    )
    assert {rule.rule_filter.prefix for rule in config.rules if rule.rule_filter} == {
        "checkpoints/"
    }
    assert {rule.status for rule in config.rules} == {"Enabled"}
    expired, old = config.rules
    assert expired.expiration
    assert expired.expiration.days == 30
    assert old.expiration
    assert old.expiration.expired_object_delete_marker
    assert old.noncurrent_version_expiration
    assert old.noncurrent_version_expiration.noncurrent_days == 1


def test_checkpoints_are_written_below_the_prefix_that_expires(rendered: Rendered) -> None:
    data = named(rendered(Variant("profile", frozenset({"minio"}))), "ConfigMap")[STORE_CONFIG][
        "data"
    ]
    assert data[Variable.CHECKPOINT_STORE] == "s3://streetvision/checkpoints"


def test_the_buckets_job_can_run_again_and_prints_no_secret(tmp_path: Path) -> None:
    """`mc` is replaced by a recorder: it stands for MinIO's client, whose commands are in its
    reference.
    """
    shutil.copytree(MINIO, tmp_path / "setup")
    client = tmp_path / "mc"
    client.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" >> {tmp_path}/calls\n[ "$3" != import ] || cat >'
        f' {tmp_path}/imported\n[ "$3" != attach ]\n'
    )
    client.chmod(0o755)
    values = {"STREETVISION_S3_ENDPOINT": "minio:9000", "STREETVISION_S3_ACCESS_KEY": "user"}
    secrets = {
        "STREETVISION_S3_SECRET_KEY": "planted-1",
        "MINIO_ROOT_USER": "root",
        "MINIO_ROOT_PASSWORD": "planted-2",
    }
    finished = subprocess.run(
        ["sh", tmp_path / "setup/setup.sh"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", **values, **secrets},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, "attaching a policy that is attached already is no failure"
    assert "planted" not in finished.stdout + finished.stderr
    assert [
        " ".join(line.split()[:4]) for line in (tmp_path / "calls").read_text().splitlines()
    ] == [
        "alias set store http://minio:9000",
        "mb --ignore-existing store/streetvision",
        "version enable store/streetvision",
        "ilm rule import store/streetvision",
        "admin user add store",
        "admin policy create store",
        "admin policy attach store",
        "alias set steps http://minio:9000",
        "ls steps/streetvision",
    ]
    assert json.loads((tmp_path / "imported").read_text()) == json.loads(
        (MINIO / "lifecycle.json").read_text()
    )


def test_the_job_fails_where_the_steps_user_cannot_list_the_bucket(tmp_path: Path) -> None:
    shutil.copytree(MINIO, tmp_path / "setup")
    client = tmp_path / "mc"
    client.write_text('#!/bin/sh\n[ "$1" != ls ]\n')
    client.chmod(0o755)
    names = ("STREETVISION_S3_ENDPOINT", "STREETVISION_S3_ACCESS_KEY", "STREETVISION_S3_SECRET_KEY")
    environment = dict.fromkeys((*names, "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"), "x")
    finished = subprocess.run(
        ["sh", tmp_path / "setup/setup.sh"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"} | environment,
        check=False,
    )
    assert finished.returncode != 0


def test_minios_user_may_use_its_bucket_and_nothing_else(rendered: Rendered) -> None:
    data = named(rendered(Variant("single-user", frozenset({"minio"}))), "ConfigMap")[
        "streetvision-minio-setup"
    ]["data"]
    statements = json.loads(data["policy.json"])["Statement"]
    assert {resource for item in statements for resource in item["Resource"]} == {
        "arn:aws:s3:::streetvision",
        "arn:aws:s3:::streetvision/*",
    }
    actions = {action for item in statements for action in item["Action"]}
    assert not [
        action
        for action in actions
        if "*" in action or "Policy" in action or action.startswith("s3:PutBucket")
    ]
    # `doctor` looks at the lifecycle rules with these credentials.
    assert "s3:GetLifecycleConfiguration" in actions


def _rule(item: dict[str, Object]) -> Rule:
    expiration, old = item.get("Expiration"), item.get("NoncurrentVersionExpiration")
    return Rule(
        str(item["Status"]),
        rule_id=str(item["ID"]),
        rule_filter=Filter(prefix=item["Filter"]["Prefix"]),
        expiration=expiration
        and Expiration(
            days=expiration.get("Days"),
            expired_object_delete_marker=expiration.get("ExpiredObjectDeleteMarker"),
        ),
        noncurrent_version_expiration=old and NoncurrentVersionExpiration(old["NoncurrentDays"]),
    )
