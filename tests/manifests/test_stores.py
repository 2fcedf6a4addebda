"""The object store of each mode: the steps' settings, an external service, MinIO's set-up job."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from minio import Minio
from minio.commonconfig import Filter
from minio.lifecycleconfig import Expiration, LifecycleConfig, NoncurrentVersionExpiration, Rule
from minio.versioningconfig import VersioningConfig

from components.shared.contracts.environment import Variable
from components.shared.storage import StoreSettings
from pipelines.doctor.retention import Retention, retention
from pipelines.resources import (
    CA_FOLDER,
    STORE_CA,
    STORE_CONFIG,
    STORE_VARIABLES,
    TEAM_SECRET,
    load_profile,
)
from tests.manifests import mc
from tests.manifests.conftest import (
    MANIFESTS,
    ROLES,
    Object,
    Variant,
    named,
    parse,
    pods,
    render,
    switch_options,
)
from tests.manifests.launcher import store_session
from tests.manifests.mc import Server, allows

MINIO = MANIFESTS / "minio"
FAKE = Path(mc.__file__)
Rendered = Callable[..., list[Object]]


def test_the_steps_settings_are_there_by_the_names_that_they_are_read_by(
    objects: list[Object],
) -> None:
    data = named(objects, "ConfigMap")[STORE_CONFIG]["data"]
    assert data.keys() - {Variable.PIPELINE_ROOT, Variable.S3_CA_FILE} == {
        *STORE_VARIABLES,
        Variable.CHECKPOINT_STORE,
        Variable.LINEAGES,
        Variable.BUNDLE_REGISTRY,
    }
    secrets = {"STREETVISION_S3_ACCESS_KEY": "access", "STREETVISION_S3_SECRET_KEY": "secret"}
    settings = StoreSettings.from_environment({**data, **secrets, Variable.S3_CA_FILE: ""})
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


def test_secrets_have_the_keys_that_a_profile_names(
    objects: list[Object], variant: Variant
) -> None:
    secrets = load_profile("a6000x2", own_store=True).secrets
    here = named(objects, "Secret")
    if variant.options & {"minio", "external-s3"}:
        assert {*secrets.of_steps(), TEAM_SECRET} <= here.keys()
    for name in here.keys() - {secrets.hub}:
        assert here[name]["data"].keys() == {secrets.store_access_key, secrets.store_secret_key}
    if secrets.hub in here:
        assert here[secrets.hub]["data"].keys() == {"HF_TOKEN"}


def test_the_stores_users_are_those_of_the_runs_secrets(
    rendered: Rendered, minio: list[Object]
) -> None:
    """The same files make both, so that a user and the Secret that a step has never differ."""
    runs = named(rendered(Variant("profile", frozenset({"minio"}))), "Secret")
    there = named(minio, "Secret")
    assert there.keys() - runs.keys() == {"streetvision-minio-root"}
    for name in there.keys() & runs.keys():
        assert there[name]["data"] == runs[name]["data"]


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
        "STREETVISION_BUNDLE_REGISTRY": "s3://road-team/registry",
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
        policy = named(objects, "NetworkPolicy")["streetvision-store-access"]["spec"]
        assert policy["egress"][0]["ports"] == [{"protocol": "TCP", "port": 7480}]
        assert launcher["data"]["defaultPipelineRoot"] == "minio://road-team/runs"


def test_checkpoints_expire_and_old_versions_do_and_nothing_else_does() -> None:
    """The client of the store takes the rules as `mc ilm rule import` reads them: AWS's names in
    JSON.
    """
    config = LifecycleConfig(list(map(_rule, _shipped_rules())))
    assert {rule.status for rule in config.rules} == {"Enabled"}
    expired, old, elsewhere = config.rules
    assert [rule.rule_filter and rule.rule_filter.prefix for rule in config.rules] == [
        "checkpoints/",
        "checkpoints/",
        "",
    ]
    assert expired.expiration
    assert expired.expiration.days == 30
    assert old.expiration
    assert old.expiration.expired_object_delete_marker
    assert old.noncurrent_version_expiration
    assert old.noncurrent_version_expiration.noncurrent_days == 1
    assert elsewhere.expiration is None, "runs and the record of splits stay"
    assert elsewhere.noncurrent_version_expiration
    assert elsewhere.noncurrent_version_expiration.noncurrent_days == 30


def test_an_s3_server_accepts_the_rules_and_doctor_reads_them(
    s3: StoreSettings, bucket: str
) -> None:
    """Whether a rule ends a version cannot be seen within a test: its least time is a day."""
    store = Minio(s3.endpoint, access_key=s3.access_key, secret_key=s3.secret_key, secure=s3.secure)
    store.set_bucket_versioning(bucket, VersioningConfig("Enabled"))
    store.set_bucket_lifecycle(bucket, LifecycleConfig(list(map(_rule, _shipped_rules()))))
    assert retention(s3, bucket, "checkpoints/") == Retention(30, True, 1, True)
    assert retention(s3, bucket, "runs/") == Retention(None, True, 30, False)


@pytest.mark.parametrize(
    ("place", "prefix"),
    [("BUCKET", "checkpoints/"), ("mlpipeline", "streetvision/checkpoints/")],
)
def test_the_documented_commands_make_the_shipped_rules_of_checkpoints(
    place: str, prefix: str
) -> None:
    text = (MANIFESTS / "README.md").read_text(encoding="utf-8")
    pattern = rf"^mc ilm rule add ALIAS/{place} --prefix {prefix} (.*)$"
    made = []
    for words in map(shlex.split, re.findall(pattern, text, re.MULTILINE)):
        # The rules that `mc ilm rule add` makes of its flags.
        rule: dict[str, Object] = {}
        values = iter(words)
        for word in values:
            if word == "--expire-days":
                rule["Expiration"] = {"Days": int(next(values))}
            elif word == "--noncurrent-expire-days":
                rule["NoncurrentVersionExpiration"] = {"NoncurrentDays": int(next(values))}
            else:
                assert word == "--expire-delete-marker"
                rule["Expiration"] = {"ExpiredObjectDeleteMarker": True}
        made.append(rule)

    shipped = [rule for rule in _shipped_rules() if rule["Filter"]["Prefix"] == "checkpoints/"]
    actions = ("Expiration", "NoncurrentVersionExpiration")
    assert made == [{key: rule[key] for key in actions if key in rule} for rule in shipped]


def test_kfps_store_has_the_checkpoints_where_the_commands_say(rendered: Rendered) -> None:
    data = named(rendered(Variant("single-user", frozenset())), "ConfigMap")[STORE_CONFIG]["data"]
    assert data[Variable.CHECKPOINT_STORE] == "s3://mlpipeline/streetvision/checkpoints"


def test_checkpoints_are_written_below_the_prefix_that_expires(rendered: Rendered) -> None:
    data = named(rendered(Variant("profile", frozenset({"minio"}))), "ConfigMap")[STORE_CONFIG][
        "data"
    ]
    assert data[Variable.CHECKPOINT_STORE] == "s3://streetvision/checkpoints"


@dataclass
class SetUp:
    """The set-up job with a client that stands for `mc` and a server (mc.py)."""

    folder: Path
    code: int = 0
    said: str = ""

    def write(self, **values: str) -> None:
        """Write credentials as the projected volume has them: role_key=value."""
        for name, value in values.items():
            role, _, key = name.partition("_")
            file = self.folder / "credentials" / role / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(value)

    def run(self) -> "SetUp":
        """Run setup.sh."""
        credentials = self.folder / "credentials"
        finished = subprocess.run(
            ["sh", self.folder / "setup/setup.sh"],
            env={
                "PATH": f"{self.folder}:/usr/bin:/bin",
                "MC_STATE": str(self.folder),
                "STREETVISION_CREDENTIALS": str(credentials),
                "STREETVISION_MINIO_URL": "http://streetvision-minio:9000",
                "STREETVISION_RETRY_SECONDS": "0",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        self.code, self.said = finished.returncode, finished.stdout + finished.stderr
        return self

    @property
    def calls(self) -> list[str]:
        """Arguments of `mc`, each call a line."""
        return (self.folder / "calls").read_text().splitlines()

    @property
    def server(self) -> Server:
        """What the server knows afterwards."""
        return Server(self.folder)


@pytest.fixture
def set_up(tmp_path: Path) -> SetUp:
    """A job with credentials of its own, and a server that knows its administrator."""
    made = SetUp(tmp_path)
    (tmp_path / "setup").mkdir()
    for file in [*MINIO.glob("*.sh"), *MINIO.glob("*.json"), *(MINIO / "policies").iterdir()]:
        shutil.copy(file, tmp_path / "setup")  # one folder, as the ConfigMap is mounted
    client = tmp_path / "mc"
    client.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {FAKE} "$@"\n')
    client.chmod(0o755)
    made.write(root_MINIO_ROOT_USER="root", root_MINIO_ROOT_PASSWORD="planted-root")
    for role in (*ROLES, "team"):
        made.write(**{f"{role}_accesskey": f"{role}-key", f"{role}_secretkey": f"planted-{role}"})
    (tmp_path / "root.json").write_text(json.dumps(["root", "planted-root"]))
    return made


def test_the_buckets_job_makes_a_user_for_each_role_and_can_run_again(set_up: SetUp) -> None:
    for _ in range(2):
        assert set_up.run().code == 0, set_up.said
    server = set_up.server
    assert server.users == {f"{role}-key": f"planted-{role}" for role in (*ROLES, "team")}
    assert server.attached == {f"{role}-key": [f"streetvision-{role}"] for role in (*ROLES, "team")}
    assert server.objects == [], "what was tried is removed"
    assert server.accounts == []
    assert json.loads((set_up.folder / "imported").read_text()) == json.loads(
        (MINIO / "lifecycle.json").read_text()
    )
    enabled = "version enable store/streetvision --excluded-prefixes checkpoints/"
    assert enabled in set_up.calls


def test_no_secret_is_an_argument_or_printed(set_up: SetUp) -> None:
    assert set_up.run().code == 0
    assert "planted" not in set_up.said + "\n".join(set_up.calls)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"root_MINIO_ROOT_PASSWORD": "change"}, "MINIO_ROOT_PASSWORD is the example's"),
        ({"root_MINIO_ROOT_USER": "change-me"}, "MINIO_ROOT_USER is the example's"),
        ({"runs_accesskey": "change-me-runs"}, "accesskey of runs is the example's"),
        ({"team_secretkey": "change"}, "secretkey of team is the example's"),
        ({"data_secretkey": "planted"}, "secretkey of data has fewer than 8 characters"),
        ({"team_accesskey": "runs-key"}, "accesskey of team is also another user's"),
        ({"data_accesskey": "root"}, "accesskey of data is also another user's"),
    ],
)
def test_the_job_refuses_credentials_that_protect_nothing(
    set_up: SetUp, values: dict[str, str], says: str
) -> None:
    set_up.write(**values)
    assert set_up.run().code == 1
    assert says in set_up.said
    assert not (set_up.folder / "calls").exists(), "nothing was sent"
    assert "planted" not in set_up.said


def test_the_examples_as_they_are_are_refused(set_up: SetUp) -> None:
    for line in (MINIO / "root.env.example").read_text().splitlines():
        name, _, value = line.partition("=")
        if not line.startswith("#"):
            set_up.write(**{f"root_{name}": value})
    assert set_up.run().code == 1


def test_the_job_ends_where_the_administrator_is_another(
    set_up: SetUp, minio: list[Object]
) -> None:
    (set_up.folder / "mc").write_text(f'#!/bin/sh\necho "$*" >> {set_up.folder}/calls\nexit 1\n')
    assert set_up.run().code == 1
    assert "no login at http://streetvision-minio:9000 as root" in set_up.said
    assert "planted" not in set_up.said
    assert len(set_up.calls) == 60
    job = named(minio, "Job")["streetvision-minio-setup"]["spec"]
    assert job["activeDeadlineSeconds"] == 900
    assert job["backoffLimit"] == 3


@pytest.mark.parametrize(
    ("role", "change", "says"),
    [
        ("data", ("s3:GetObject", "s3:PutObject"), "data cannot do what it must: reads data/"),
        ("runs", ("runs/*", "*"), "runs can do what it must not: writes data"),
        (
            "runs",
            ("lineages/*", "registry/*"),
            "runs can do what it must not: writes registry; see",
        ),
        ("registry", ("registry/*", "*"), "registry can do what it must not: writes data"),
        ("checkpoints", ("streetvision/checkpoints/*", "streetvision/*"), "checkpoints can do"),
        ("team", ("admin:CreateServiceAccount", "admin:ListUsers"), "team can do what it must not"),
    ],
)
def test_the_job_fails_where_a_policy_gives_too_much_or_too_little(
    set_up: SetUp, role: str, change: tuple[str, str], says: str
) -> None:
    policy = set_up.folder / "setup" / f"{role}.json"
    assert change[0] in policy.read_text()
    policy.write_text(policy.read_text().replace(*change))
    assert set_up.run().code == 1
    assert says in set_up.said


def _policy(role: str) -> Any:
    return json.loads((MINIO / f"policies/{role}.json").read_text())


READ, WRITE, DELETE = "s3:GetObject", "s3:PutObject", "s3:DeleteObject"
# Who may do what: data, backbones, the demo, artifacts, the record of splits, checkpoints.
RIGHTS = {
    "data": {
        "data": READ,
        "backbones": READ,
        "streetvision/demo": READ,
        "lineages": READ,
        "registry": READ,
    },
    "runs": {
        "runs": f"{READ} {WRITE}",
        "lineages": f"{READ} {WRITE}",
        "registry": READ,
    },
    "checkpoints": {"checkpoints": f"{READ} {WRITE} {DELETE}"},
    "registry": {"registry": f"{READ} {WRITE}"},
    "team": {
        "data": f"{READ} {WRITE} {DELETE}",
        "backbones": f"{READ} {WRITE} {DELETE}",
        "streetvision/demo": f"{READ} {WRITE} {DELETE}",
        "runs": READ,
        "lineages": READ,
        "registry": f"{READ} {WRITE}",
    },
}
PREFIXES = sorted({prefix for rights in RIGHTS.values() for prefix in rights})


@pytest.mark.parametrize("role", RIGHTS)
def test_each_user_may_do_what_its_role_needs_and_no_more(role: str) -> None:
    policy = _policy(role)
    for prefix in PREFIXES:
        allowed = {
            action for action in (READ, WRITE, DELETE) if allows(policy, action, f"{prefix}/x")
        }
        assert allowed == set(RIGHTS[role].get(prefix, "").split()), prefix
        listed = allows(policy, "s3:ListBucket", prefix=f"{prefix}/")
        assert listed == (prefix in RIGHTS[role] or role == "team"), prefix
    assert allows(policy, "s3:ListBucket", prefix="") == (role == "team")
    assert not allows(policy, "s3:DeleteObjectVersion", "checkpoints/x")


@pytest.mark.parametrize("role", RIGHTS)
def test_who_promotes_removes_the_probe_and_only_people_remove_bundles(role: str) -> None:
    """The probe for conditional writes; no record of the registry is removed by anybody."""
    promotes = role in ("registry", "team")
    policy = _policy(role)
    assert allows(policy, DELETE, "registry/.probe-0a1b") == promotes
    assert allows(policy, DELETE, "registry/bundles/0a1b/manifest.json") == (role == "team")
    for kept in ("champion.json", "decisions/000001.json", "comparisons/x/000001.json"):
        assert not allows(policy, DELETE, f"registry/{kept}")


@pytest.mark.parametrize("role", RIGHTS)
def test_no_user_changes_the_bucket_or_makes_keys(role: str) -> None:
    actions = {
        action
        for statement in _policy(role)["Statement"]
        for action in statement["Action"]
        if statement["Effect"] == "Allow"
    }
    assert not [action for action in actions if "*" in action or "Policy" in action]
    assert not [action for action in actions if action.startswith(("s3:PutBucket", "s3:DeleteB"))]
    # `doctor` reads the version with the team's user.
    assert {action for action in actions if action.startswith("admin:")} == (
        {"admin:ServerInfo"} if role == "team" else set()
    )
    denied = [item["Action"] for item in _policy(role)["Statement"] if item["Effect"] == "Deny"]
    assert denied == [["admin:CreateServiceAccount", "admin:UpdateServiceAccount"]]


def test_borrowed_credentials_end_soon(minio: list[Object]) -> None:
    """No policy denies `sts:AssumeRole`.

    The variable replaces what a caller asks for (GetDefaultExpiration, internal/config/identity/
    openid of minio/minio), whose least is 15 minutes and most 365 days.
    """
    server = pods(minio)["streetvision-minio"]["spec"]["containers"][0]
    variables = {item["name"]: item.get("value") for item in server["env"]}
    assert variables["MINIO_STS_DURATION"] == "15m"


def test_a_statement_is_of_one_kind_and_names_the_bucket_apart() -> None:
    """MinIO takes administrative actions in statements of their own.

    Bucket-level actions need the bucket itself as a resource (SN-2026-004 of the maintained build).
    """
    at_bucket = {"s3:ListBucket", "s3:GetBucketLocation"}
    at_bucket |= {"s3:GetBucketVersioning", "s3:GetLifecycleConfiguration"}
    for role in RIGHTS:
        for statement in _policy(role)["Statement"]:
            kinds = {action.partition(":")[0] for action in statement["Action"]}
            assert len(kinds) == 1
            assert ("Resource" in statement) == (kinds == {"s3"})
            if kinds == {"s3"}:
                whole = statement["Resource"] == ["arn:aws:s3:::streetvision"]
                assert whole == (set(statement["Action"]) <= at_bucket), statement


def test_doctor_may_look_at_versions_and_rules_as_training() -> None:
    for action in ("s3:GetLifecycleConfiguration", "s3:GetBucketVersioning"):
        assert allows(_policy("checkpoints"), action)


def test_https_reaches_everything_that_names_the_store(
    rendered: Rendered, minio_with_tls: list[Object]
) -> None:
    """Steps get the authority as a file and a setting, the launcher the flag."""
    for mode in ("single-user", "profile"):
        objects = rendered(Variant(mode, frozenset({"minio", "tls"})))
        config_maps = named(objects, "ConfigMap")
        data = config_maps[STORE_CONFIG]["data"]
        assert data[Variable.S3_SECURE] == "true"
        folder, _, file = data[Variable.S3_CA_FILE].rpartition("/")
        assert folder == CA_FOLDER
        assert file in config_maps[STORE_CA]["data"]

    spec = pods(minio_with_tls)["streetvision-minio"]["spec"]
    server = spec["containers"][0]
    assert server["args"] == ["server", "--certs-dir", "/certs", "/data"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"]["scheme"] == "HTTPS"
    (certs,) = [volume for volume in spec["volumes"] if volume["name"] == "certs"]
    certificate = named(minio_with_tls, "Certificate")["streetvision-minio"]["spec"]
    assert certs["secret"]["secretName"] == certificate["secretName"]
    assert {item["path"] for item in certs["secret"]["items"]} == {"public.crt", "private.key"}

    job = pods(minio_with_tls)["streetvision-minio-setup"]["spec"]["containers"][0]
    variables = {item["name"]: item["value"] for item in job["env"]}
    url = urlsplit(variables["STREETVISION_MINIO_URL"])
    assert (url.scheme, url.hostname in certificate["dnsNames"]) == ("https", True)
    endpoint = data[Variable.S3_ENDPOINT].partition(":")[0]
    assert {endpoint, "localhost"} <= set(certificate["dnsNames"])
    authority = variables["SSL_CERT_FILE"].rpartition("/")[0]
    assert authority in [mount["mountPath"] for mount in job["volumeMounts"]]


def test_every_secret_that_a_pod_mounts_is_there_with_its_keys(
    minio: list[Object], minio_with_tls: list[Object]
) -> None:
    made_elsewhere = {"streetvision-minio-tls": {"tls.crt", "tls.key", "ca.crt"}}  # cert-manager
    for objects in (minio, minio_with_tls):
        known = {name: set(item["data"]) for name, item in named(objects, "Secret").items()}
        known |= made_elsewhere
        for pod in pods(objects).values():
            for volume in pod["spec"]["volumes"]:
                sources = [volume, *volume.get("projected", {}).get("sources", [])]
                for secret in (item["secret"] for item in sources if "secret" in item):
                    name = secret.get("secretName") or secret["name"]
                    assert {item["key"] for item in secret["items"]} <= known[name], name


def _shipped_rules() -> list[dict[str, Object]]:
    rules: list[dict[str, Object]] = json.loads((MINIO / "lifecycle.json").read_text())["Rules"]
    return rules


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
