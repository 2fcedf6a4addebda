"""The doctor against a Kubernetes API and KFP's API that answer from files, and a real S3 server.

Objects of ours are those that the overlays render. `kubernetes_answers.json` stands for the
clusters that they meet, one in each mode. Its objects are checked against Kubernetes' schemas;
workflow-controller-configmap, artifact-repositories and the Profile's labels are those that KFP
2.17.0 installs. What KFP's API says is recorded (tests/recordings).
"""

import base64
import copy
import functools
import json
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import pytest
import yaml
from minio.commonconfig import Filter
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule

from components.shared.storage import Store, StoreSettings
from pipelines.cli.app import main
from pipelines.doctor import capacity
from tests.fault_proxy import fault_proxy
from tests.manifests.conftest import MANIFESTS, ROLES, fill_examples

STATUSES = ("ok  ", "warning  ", "MISSING  ", "unknown  ")
Answers = dict[str, Any]
Change = Callable[[Answers], None]
KUBERNETES = json.loads((Path(__file__).parents[1] / "kubernetes_answers.json").read_text())
RECORDINGS = Path(__file__).parents[2] / "recordings"
PLURALS = {
    "ConfigMap": "configmaps",
    "Secret": "secrets",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
}
KFP, PODS, NODES = (
    "/apis/v2beta1",
    "/api/v1/pods?status.phase!=Succeeded,status.phase!=Failed",
    "/api/v1/nodes",
)
SINGLE_USER, PROFILE = "/api/v1/namespaces/kubeflow", "/api/v1/namespaces/streetvision"
CONTROLLER = f"{SINGLE_USER}/configmaps/workflow-controller-configmap"
STORE_SECRET = f"{SINGLE_USER}/secrets/mlpipeline-minio-artifact"
LAUNCHER = f"{SINGLE_USER}/configmaps/kfp-launcher"
STORE_CONFIG = f"{SINGLE_USER}/configmaps/streetvision-store"
REVIEW = "/apis/authorization.k8s.io/v1/namespaces/kubeflow/localsubjectaccessreviews"
POLICY = "/apis/networking.k8s.io/v1/namespaces/streetvision/networkpolicies/streetvision-steps"
API_SERVERS = (
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    "?kubernetes.io/service-name=kubernetes"
)
RELEASE, DELETED = "MinIO release", "deleted checkpoints"
KUEUE = "/apis/kueue.x-k8s.io/v1beta2/namespaces/kubeflow/localqueues"
KUEUE_CONFIG = "/api/v1/namespaces/kueue-system/configmaps/kueue-manager-config"


def _encoded(**values: str) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}


class _Api(ThreadingHTTPServer):
    """Answers by path and selector.

    A number is an error's status, a pair has a status and a body.
    """

    daemon_threads = True

    def __init__(self, answers: Answers) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.changes: list[str] = []  # requests that would change an object

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: _Api

    def _handle(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        selector = "".join(query.get("fieldSelector", []) + query.get("labelSelector", []))
        answer = self.server.answers.get(parts.path + (f"?{selector}" if selector else ""), 404)
        if self.command != "GET" and not parts.path.endswith("/localsubjectaccessreviews"):
            self.server.changes.append(f"{self.command} {self.path}")
        self._answer(*_status_and_body(answer, parts.path))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815

    def _answer(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def _status_and_body(answer: Any, path: str) -> tuple[int, Any]:
    """An error is a Status of Kubernetes, whose message for 403 names what was asked for."""
    if isinstance(answer, list):
        return int(answer[0]), answer[1]
    if not isinstance(answer, int):
        return 200, answer
    *_, kind, name = path.split("/")
    verb, resource = (
        ("get", kind) if kind.endswith("s") and "/namespaces/" in path else ("list", name)
    )
    message = (
        f'{resource} is forbidden: User "user" cannot {verb} resource "{resource}" in API group ""'
    )
    return answer, {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "code": answer,
    }


def _recorded(name: str) -> Any:
    return json.loads((RECORDINGS / name).read_text())


def _kubeconfig(file: Path, host: str) -> None:
    document = {
        "clusters": [{"name": "c", "cluster": {"server": host}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file.write_text(yaml.safe_dump(document))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Api]:
    """An API without answers yet; KUBECONFIG and the variable for KFP's host lead to it."""
    for name in ("STREETVISION_KFP_TOKEN", "STREETVISION_KFP_COOKIE"):
        monkeypatch.delenv(name, raising=False)
    with _Api({}) as api:
        thread = threading.Thread(
            target=api.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        thread.start()
        _kubeconfig(tmp_path / "kubeconfig", api.host)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", api.host)
        yield api
        assert api.changes == []
        api.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Answers]:
    """What the API answers for the objects of an overlay after `kubectl apply -k`."""
    folder = tmp_path_factory.mktemp("manifests") / "manifests"
    shutil.copytree(MANIFESTS, folder, ignore=shutil.ignore_patterns("*.env"))
    fill_examples(folder)
    settings = folder / "overlays/profile/editor/settings.yaml"
    settings.write_text(settings.read_text().replace("192.0.2.1/32", "172.18.0.0/30"))
    settings.write_text(settings.read_text().replace("192.0.2.2/32", "10.96.0.1/32"))

    def answers(mode: str) -> Answers:
        kubectl = Path(sys.executable).with_name("kubectl")
        made = subprocess.run(
            [kubectl, "kustomize", folder / "overlays" / mode], capture_output=True, check=True
        )
        found: Answers = {}
        for item in yaml.safe_load_all(made.stdout):
            namespace = f"/api/v1/namespaces/{item['metadata'].get('namespace')}"
            if item["kind"] == "ResourceQuota":
                used = dict.fromkeys(item["spec"]["hard"], "0")
                item["status"] = {"hard": dict(item["spec"]["hard"]), "used": used}
            if item["kind"] in PLURALS:
                found[f"{namespace}/{PLURALS[item['kind']]}/{item['metadata']['name']}"] = item
            elif item["kind"] == "NetworkPolicy":
                group = namespace.replace("/api/", "/apis/networking.k8s.io/")
                found[f"{group}/networkpolicies/{item['metadata']['name']}"] = item
            elif item["kind"] in ("ResourceQuota", "LimitRange"):
                kind = {"apiVersion": "v1", "kind": f"{item['kind']}List", "metadata": {}}
                found[f"{namespace}/{item['kind'].lower()}s"] = {**kind, "items": [item]}
        return found

    return answers


def _cluster(
    server: _Api, objects: Answers, mode: str, secrets: list[str], s3: StoreSettings
) -> Answers:
    answers = server.answers
    answers |= copy.deepcopy(KUBERNETES["cluster"] | KUBERNETES[mode]) | objects
    for secret in secrets:
        answers[secret]["data"] = _encoded(accesskey=s3.access_key, secretkey=s3.secret_key)
    for node in answers[NODES]["items"]:
        node["status"]["images"].append({"names": list(_images()), "sizeBytes": 1})
    return answers


@pytest.fixture
def single_user(server: _Api, s3: StoreSettings, rendered: Callable[[str], Answers]) -> Answers:
    """The answers of a ready single-user cluster, to be changed by a test."""
    Store(s3).make_bucket("mlpipeline")
    answers = _cluster(server, rendered("single-user"), "single-user", [STORE_SECRET], s3)
    answers[f"{KFP}/healthz"] = _recorded("api/healthz.json")
    answers[f"{KFP}/runs"] = {}
    answers[f"{KFP}/pipelines"] = _recorded("api/pipelines.json")
    return answers


@pytest.fixture
def profile(
    server: _Api,
    s3: StoreSettings,
    rendered: Callable[[str], Answers],
    monkeypatch: pytest.MonkeyPatch,
) -> Answers:
    """The answers of a ready Profile with MinIO of its own, to be changed by a test."""
    store = Store(s3)
    store.make_bucket("streetvision")
    rule = Rule(
        "Enabled",
        rule_filter=Filter(prefix="checkpoints/"),
        rule_id="c",
        expiration=Expiration(days=30),
    )
    with store._pool.operation(), store._pool.operation():
        store._client.set_bucket_lifecycle("streetvision", LifecycleConfig([rule]))

    answers = _cluster(
        server,
        rendered("profile"),
        "profile",
        [f"{PROFILE}/secrets/streetvision-{role}" for role in (*ROLES, "team")],
        s3,
    )
    answers[f"{KFP}/healthz"] = _recorded("api-multi-user/healthz.json")
    answers[f"{KFP}/runs"] = _recorded("api-multi-user/runs-empty.json")
    answers[f"{KFP}/pipelines"] = _recorded("api/pipelines.json")
    monkeypatch.setenv("STREETVISION_KFP_TOKEN", "planted-token")
    return answers


@functools.cache
def _images() -> list[str]:
    """The images as a node lists them."""
    from pipelines.images import pipeline_images

    return [f"docker.io/{image.reference}" for image in pipeline_images()]


def _doctor(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, str], str]:
    """Exit code, "status found -> advice" by check, and everything printed."""
    code = 0
    try:
        main(["doctor", *options])
    except SystemExit as error:
        code = int(error.code or 0)
    out = capsys.readouterr().out
    findings: dict[str, str] = {}
    check = ""
    for line in out.splitlines():
        if not line.startswith((*STATUSES, " ")):
            continue
        if line.startswith(" "):
            findings[check] += f" {line.strip()}"
        else:
            check = line[9:35].strip()
            findings[check] = f"{line[:9].strip()} {line[35:]}"
    return code, findings, out


def _in_single_user(
    s3: StoreSettings, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, dict[str, str], str]:
    return _doctor(capsys, "--store-endpoint", s3.endpoint, *options)


def _in_profile(
    s3: StoreSettings, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, dict[str, str], str]:
    return _doctor(capsys, "--own-store", "--store-endpoint", s3.endpoint, *options)


def _not_ok(findings: dict[str, str]) -> dict[str, str]:
    return {check: text for check, text in findings.items() if not text.startswith("ok ")}


def test_the_answers_are_objects_of_kubernetes() -> None:
    version = kubernetes_validate.latest_version()
    for answers in KUBERNETES.values():
        for path, answer in answers.items():
            kind = answer.get("kind", "")
            if path == "/version/" or kind == "LocalSubjectAccessReview":
                continue
            items = answer.get("items", [answer])
            for item in items:  # a list of the real API leaves the items' kind out
                whole = {
                    "apiVersion": answer["apiVersion"],
                    "kind": kind.removesuffix("List"),
                    **item,
                }
                kubernetes_validate.validate(whole, version, strict=True)


def test_a_ready_single_user_cluster(
    single_user: Answers, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Store(s3).list("mlpipeline")
    code, findings, out = _in_single_user(s3, capsys)
    assert (code, _not_ok(findings)) == (0, {})
    assert "single-user, runs are in namespace kubeflow" in findings["KFP API"]
    assert "2.17.0 (image ghcr.io/kubeflow/kfp-api-server:2.17.0)" in findings["KFP version"]
    assert "minio://mlpipeline/v2/artifacts at seaweedfs.kubeflow:9000" in findings["pipeline root"]
    assert "honours conditional writes" in findings["checkpoints"]
    assert "retryPolicy OnError" in findings["retries"]
    assert (
        "2 GPUs, 16 CPUs, 96Gi memory: gpu-2 can hold one now"
        in findings["nodes for training steps"]
    )
    assert Store(s3).list("mlpipeline") == before  # the probe is deleted
    assert s3.access_key not in out
    assert s3.secret_key not in out


def test_a_ready_profile(
    profile: Answers, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    code, findings, out = _in_profile(s3, capsys)
    assert (code, _not_ok(findings)) == (0, {})
    assert "streetvision, a Profile's; Pod Security baseline" in findings["namespace"]
    archive = (
        "to seaweedfs.kubeflow.svc.cluster.local:9000 (artifact-repositories of streetvision); its"
        " Secret is there"
    )
    assert archive in findings["log archive"]
    address = "streetvision-minio.streetvision-store.svc:9000"
    assert f"minio://streetvision/runs at {address}" in findings["pipeline root"]
    assert "with Secret streetvision-runs" in findings["pipeline root"]
    assert "admits the Kubernetes API (172.18.0.2:6443)" in findings["network policy"]
    assert "keeps no versions: a deleted checkpoint frees its bytes" in findings[DELETED]
    assert "is no MinIO (it says that it is 'SeaweedFS" in findings[RELEASE]
    assert "expire after 30 days" in findings["checkpoint expiry"]
    assert "streetvision has 2 GPUs, 32 CPUs, " in findings["quota"]
    assert "planted-token" not in out


def _without(path: str) -> Change:
    return lambda answers: answers.pop(path)


def _set(path: str, answer: Any) -> Change:
    def change(answers: Answers) -> None:
        answers[path] = answer

    return change


def _data(path: str, **values: str) -> Change:
    return lambda answers: answers[path]["data"].update(values)


def _drop(path: str, key: str) -> Change:
    return lambda answers: answers[path]["data"].pop(key)


def _denied(answers: Answers) -> None:
    answers[REVIEW]["status"] = {"allowed": False}


def _labels_of_another(answers: Answers) -> None:
    answers[PROFILE]["metadata"]["labels"]["app.kubernetes.io/part-of"] = "streetvision"


def _as_shipped(answers: Answers) -> None:
    answers[POLICY]["spec"]["egress"][0]["to"][0]["ipBlock"]["cidr"] = "192.0.2.1/32"


def _another_api_server(answers: Answers) -> None:
    (endpoint,) = answers[API_SERVERS]["items"][0]["endpoints"]
    endpoint["addresses"].append("172.18.0.9")


def _full_quota(answers: Answers) -> None:
    answers[f"{PROFILE}/resourcequotas"]["items"][0]["status"]["used"][
        "requests.nvidia.com/gpu"
    ] = "1"


def _small_quota(answers: Answers) -> None:
    answers[f"{PROFILE}/resourcequotas"]["items"][0]["spec"]["hard"]["requests.cpu"] = "8"


def _low_limit(answers: Answers) -> None:
    answers[f"{PROFILE}/limitranges"]["items"][0]["spec"]["limits"][0]["max"]["memory"] = "64Gi"


PROVIDER = (
    "s3: {default: {endpoint: 'x:9000', credentials: {fromEnv: false, secretRef: {secretName: a}}}}"
)


@pytest.mark.parametrize(
    ("change", "check", "says"),
    [
        (_without(SINGLE_USER), "namespace", "kubeflow does not exist -> give --namespace"),
        (
            _without(f"{SINGLE_USER}/services/ml-pipeline"),
            "namespace",
            (
                "kubeflow is not KFP's own, having no Service ml-pipeline; single-user KFP starts"
                " all pods in its own"
            ),
        ),
        (
            _without(f"{SINGLE_USER}/serviceaccounts/streetvision-runner"),
            "service account",
            "no pod of a run would be made -> kubectl apply -k manifests/overlays/single-user",
        ),
        (
            _denied,
            "rights",
            (
                "streetvision-runner may not get configmaps kfp-launcher, get pods, create"
                " workflowtask"
            ),
        ),
        (
            _without(STORE_SECRET),
            "store secret",
            "mlpipeline-minio-artifact is not there: no step that needs it reaches",
        ),
        (
            _drop(STORE_SECRET, "secretkey"),
            "store secret",
            "mlpipeline-minio-artifact has no secretkey -> complete",
        ),
        (
            _without(STORE_CONFIG),
            "store settings",
            "streetvision-store is not there: steps cannot read s3:// data",
        ),
        (
            _data(STORE_CONFIG, STREETVISION_PIPELINE_ROOT="minio://no-such-bucket/runs"),
            "pipeline root",
            "no-such-bucket",
        ),
        (
            _data(LAUNCHER, defaultPipelineRoot="gs://x/y"),
            "pipeline root",
            "'gs://x/y' of kfp-launcher is neither",
        ),
        (
            _data(LAUNCHER, defaultPipelineRoot="s3://x/y", providers=PROVIDER),
            "pipeline root",
            (
                "the credentials in kfp-launcher have neither fromEnv nor a complete secretRef ->"
                " give secretName"
            ),
        ),
        (
            _data(LAUNCHER, providers="minio: {default: no}"),
            "pipeline root",
            "minio.default in the providers of kfp-launcher is",
        ),
        (
            _data(LAUNCHER, providers="minio: {"),
            "pipeline root",
            "providers of kfp-launcher is no YAML -> correct it",
        ),
        (
            _data(LAUNCHER, defaultPipelineRoot="minio://no-such-bucket/v2"),
            "pipeline root",
            "NoSuchBucket: The specified bucket does not exist -> create it or correct the name",
        ),
        (
            _data(STORE_SECRET, **_encoded(secretkey="planted-wrong-key")),
            "checkpoints",
            "cannot swap",  # the first failure, not the clean-up's
        ),
        (
            _set(f"{SINGLE_USER}/secrets/streetvision-hub", {"data": {}}),
            "hub token",
            "streetvision-hub has no HF_TOKEN",
        ),
        (
            _without(STORE_SECRET),
            "log archive",
            "is not there, and workflow-controller-configmap of kubeflow makes every",
        ),
        (
            _drop(STORE_SECRET, "accesskey"),
            "log archive",
            "mlpipeline-minio-artifact has no accesskey, and workflow-con",
        ),
    ],
)
def test_what_is_missing_in_single_user_mode(
    single_user: Answers,
    s3: StoreSettings,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    check: str,
    says: str,
) -> None:
    change(single_user)
    code, findings, out = _in_single_user(s3, capsys)
    assert code == 1
    assert findings[check].startswith("MISSING ")
    assert says in findings[check]
    assert "planted" not in out
    assert "a6000 " not in out


@pytest.mark.parametrize(
    ("change", "check", "says"),
    [
        (
            _without(PROFILE),
            "namespace",
            "have an admin create the Profile streetvision, then kubectl apply -k manifests",
        ),
        (
            _labels_of_another,
            "namespace",
            (
                "-> have an admin run: kubectl label namespace streetvision --overwrite "
                "app.kubernetes.io/part-of=kubeflow-profile"
            ),
        ),
        (
            _full_quota,
            "quota",
            "has 1 GPU left of 2 GPUs (requests.nvidia.com/gpu), training steps ask for 2 GPUs",
        ),
        (
            _small_quota,
            "quota",
            "allows 8 CPUs (requests.cpu), training steps ask for 16 CPUs: never",
        ),
        (
            _low_limit,
            "limits",
            "allows at most 64Gi memory for a container, training steps have 96Gi memory",
        ),
        (
            _set(f"{PROFILE}/limitranges", {"kind": "LimitRangeList", "metadata": {}, "items": []}),
            "limits",
            (
                "counts limits.cpu, limits.memory, requests.cpu, requests.memory, and no LimitRange"
                " gives"
            ),
        ),
        (
            _without(f"{PROFILE}/secrets/mlpipeline-minio-artifact"),
            "log archive",
            (
                "is not there, and artifact-repositories of streetvision makes every pod wait for"
                " it for ever -> KFP's profile controller makes it where the namespace has the"
                " label pipelines.kubeflow.org/enabled=true"
            ),
        ),
        (
            _without(f"{PROFILE}/secrets/streetvision-checkpoints"),
            "store secret",
            "streetvision-checkpoints is not there: no step that needs it reaches",
        ),
        (
            _data(f"{PROFILE}/secrets/streetvision-runs", **_encoded(secretkey="change")),
            "store secret",
            "streetvision-runs still has the example's secretkey, known to everybody -> set your",
        ),
        (
            _data(f"{PROFILE}/secrets/streetvision-team", **_encoded(accesskey="change-me-team")),
            "store secret",
            "streetvision-team still has the example's accesskey",
        ),
        (
            _as_shipped,
            "network policy",
            "has the placeholder for the Kubernetes API, so that no step reaches it -> set",
        ),
        (
            _another_api_server,
            "network policy",
            "streetvision-steps does not admit 172.18.0.9:6443, where the Kubernetes API is",
        ),
        (
            _without(f"{PROFILE}/serviceaccounts/streetvision-runner"),
            "service account",
            "-> have an admin run: kubectl apply -k manifests/overlays/profile/admin",
        ),
        (
            _without(f"{PROFILE}/configmaps/streetvision-store"),
            "store settings",
            "-> kubectl apply -k manifests/overlays/profile/editor",
        ),
        (
            _set(f"{KFP}/runs", [401, _recorded("api-multi-user/runs-expired.json")]),
            "KFP credentials",
            (
                "service account token has expired -> make a token: export"
                " STREETVISION_KFP_TOKEN=$(kubectl create token default-editor -n streetvision"
                " --audience pipelines.kubeflow.org"
            ),
        ),
        (
            _set(f"{KFP}/runs", [401, _recorded("api-multi-user/runs-wrong-audience.json")]),
            "KFP credentials",
            "is invalid for the target audiences",
        ),
        (
            _set(f"{KFP}/runs", [401, _recorded("api-multi-user/runs-no-identity.json")]),
            "KFP credentials",
            "there is no user identity header",
        ),
        (
            _set(f"{KFP}/runs", [403, _recorded("api-multi-user/runs-forbidden.json")]),
            "KFP credentials",
            (
                "user 'system:serviceaccount:other:default-editor' may not list runs in namespace"
                " 'streetvision'"
            ),
        ),
    ],
)
def test_what_is_missing_in_a_profile(
    profile: Answers,
    s3: StoreSettings,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    check: str,
    says: str,
) -> None:
    change(profile)
    code, findings, _ = _in_profile(s3, capsys)
    assert code == 1
    assert findings[check].startswith("MISSING ")
    assert says in findings[check]


def test_a_wrong_namespace_is_said_once(
    single_user: Answers, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    code, findings, _ = _in_single_user(
        s3, capsys, "--namespace", "streetvision", "--kfp-namespace", "kubeflow"
    )
    assert code == 1
    assert list(_not_ok(findings)) == ["namespace"]
    assert "service account" not in findings


def test_the_steps_secret_is_the_launchers(
    profile: Answers, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    stock = profile.pop(f"{PROFILE}/secrets/mlpipeline-minio-artifact")
    _, findings, _ = _doctor(capsys, "--store-endpoint", s3.endpoint)
    advice = "streetvision-runs is there: compile with --own-store"
    assert (
        "mlpipeline-minio-artifact is not there: no step that needs it reaches the object store ->"
        f" {advice}" in findings["store secret"]
    )

    stock["data"] = _encoded(accesskey="kfp", secretkey="planted")
    profile[f"{PROFILE}/secrets/mlpipeline-minio-artifact"] = stock
    _, findings, _ = _doctor(capsys, "--store-endpoint", s3.endpoint)
    assert (
        "with Secret streetvision-runs, the steps with mlpipeline-minio-artifact -> compile with"
        " --own-store" in findings["store settings"]
    )


def test_without_kfp_the_cluster_is_looked_at_all_the_same(
    profile: Answers,
    s3: StoreSettings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for host, says in (
        ("", "the host of Kubeflow's API is not set -> add --host URL"),
        ("http://127.0.0.1:9", "cannot be reached to look whether the API is there"),
    ):
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", host)
        code, findings, _ = _in_profile(s3, capsys, "--namespace", "streetvision")
        assert code == 1
        assert findings["KFP API"].startswith("MISSING ")
        assert says in findings["KFP API"]
        assert "KFP credentials" not in findings
        assert "a Profile's" in findings["namespace"]  # the mode is told by the namespace's labels
        assert list(_not_ok(findings)) == ["KFP API"]


def test_without_a_cluster_kfp_is_looked_at_all_the_same(
    profile: Answers,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    code, findings, _ = _doctor(capsys)
    assert code == 0
    assert list(findings) == [
        "KFP API",
        "KFP version",
        "KFP credentials",
        "pipeline",
        "Kubernetes API",
    ]
    assert findings["Kubernetes API"].startswith("unknown no cluster is configured")
    assert findings["KFP version"].startswith("unknown the API does not tell its version")

    _kubeconfig(tmp_path / "away", "http://127.0.0.1:9")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "away"))
    code, findings, _ = _doctor(capsys)
    assert code == 1
    assert findings["Kubernetes API"].startswith("MISSING cannot be reached (")


def test_what_may_not_be_looked_at_is_unknown(
    profile: Answers, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in [*profile, f"{PROFILE}/secrets/streetvision-hub"]:
        if not path.startswith((KFP, "/version")):
            profile[path] = 403
    code, findings, out = _in_profile(s3, capsys)
    assert code == 0
    told = {check for check, text in findings.items() if not text.startswith("unknown ")}
    assert told == {
        "KFP API",
        "KFP credentials",
        "pipeline",
        "Kubernetes API",
        "image pull secrets",
    }
    assert "these credentials may not look (list nodes)" in findings["nodes for light steps"]
    assert "these credentials may not look (get secrets)" in findings["store secret"]
    assert out.endswith("where these credentials may not look, have an admin run this\n")


def test_an_editor_of_a_profile_sees_its_namespace_only(
    profile: Answers, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = (NODES, PODS, CONTROLLER, f"{SINGLE_USER}/pods?app=ml-pipeline")
    profile |= dict.fromkeys(closed, 403)
    del profile[f"{PROFILE}/configmaps/artifact-repositories"]
    del profile[f"{PROFILE}/secrets/mlpipeline-minio-artifact"]
    code, findings, _ = _in_profile(s3, capsys)
    assert code == 1
    assert findings["retries"].startswith("unknown ")
    # Argo's settings may not be read, KFP's stock ones are taken for granted.
    assert (
        "mlpipeline-minio-artifact is not there, and KFP's stock setting makes every pod wait"
        in findings["log archive"]
    )


@pytest.mark.parametrize(
    ("tag", "image", "says"),
    [
        (
            "2.16.1",
            "ghcr.io/kubeflow/kfp-api-server:2.17.0",
            "MISSING 2.16.1 (the API says so) is older than 2.17",
        ),
        (
            "unknown",
            "registry.example:5000/kfp-api-server:v2.18.0-rc.1",
            "ok v2.18.0-rc.1 (image registry.example:5000",
        ),
        ("unknown", "registry.example/kfp-api-server:2.5.0@sha256:00", "MISSING 2.5.0 (image"),
        (
            "unknown",
            "registry.example/kfp-api-server:ours",
            "ok 2.17.0 (pipeline-install-config of kubeflow)",
        ),
    ],
)
def test_the_version_is_the_apis_or_that_of_kubernetes(
    single_user: Answers,
    s3: StoreSettings,
    capsys: pytest.CaptureFixture[str],
    tag: str,
    image: str,
    says: str,
) -> None:
    single_user[f"{KFP}/healthz"]["tag_name"] = tag
    single_user[f"{SINGLE_USER}/pods?app=ml-pipeline"]["items"][0]["spec"]["containers"][0][
        "image"
    ] = image
    assert says in _in_single_user(s3, capsys)[1]["KFP version"]


def test_an_api_without_this_pipeline_is_ready_for_it(
    single_user: Answers, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    single_user[f"{KFP}/pipelines"] = {}
    code, findings, _ = _in_single_user(s3, capsys)
    assert code == 0
    assert (
        "streetvision-stage1 is not uploaded yet; submit and upload do it" in findings["pipeline"]
    )


@pytest.mark.parametrize(
    ("retry_strategy", "says"),
    [
        (
            {"limit": "2", "retryPolicy": "Always"},
            "retryPolicy Always: Argo starts deleted pods and failed processes",
        ),
        (
            {"limit": "2"},
            (
                "retryPolicy OnFailure: Argo starts a failed process again, also after a permanent"
                " error"
            ),
        ),
    ],
)
def test_what_argo_retries_is_told(
    single_user: Answers,
    s3: StoreSettings,
    capsys: pytest.CaptureFixture[str],
    retry_strategy: Any,
    says: str,
) -> None:
    defaults = {"spec": {"templateDefaults": {"retryStrategy": retry_strategy}}}
    single_user[CONTROLLER]["data"]["workflowDefaults"] = yaml.safe_dump(defaults)
    code, findings, _ = _in_single_user(s3, capsys)
    assert code == 0
    assert says in findings["retries"]
    assert "-> KFP 2.17 ships OnError" in findings["retries"]


def test_a_store_that_is_away_is_unknown_with_the_port_to_forward(
    single_user: Answers, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    single_user[STORE_CONFIG]["data"]["STREETVISION_S3_ENDPOINT"] = "127.0.0.1:9"
    code, findings, _ = _doctor(capsys)
    assert code == 0
    assert "unknown 127.0.0.1:9 cannot be reached from here" in findings["checkpoints"]
    assert (
        "-> kubectl port-forward --namespace kubeflow service/seaweedfs 9000, then --store-endpoint"
        in findings["pipeline root"]
    )

    code, findings, _ = _doctor(capsys, "--store-endpoint", "127.0.0.1:9")
    assert code == 1
    assert "-> is the port forwarded?" in findings["checkpoints"]


def test_a_store_that_ignores_conditions_is_refused(
    single_user: Answers, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    with fault_proxy(s3.endpoint) as proxy:
        proxy.ignore_conditions = True
        code, findings, _ = _doctor(capsys, "--store-endpoint", proxy.endpoint)
    assert code == 1
    assert "ignores If-None-Match on PUT -> use a store that honours" in findings["checkpoints"]


def test_the_lifecycle_rule_is_needed_on_our_store_only(
    profile: Answers, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(s3)
    with store._pool.operation(), store._pool.operation():
        store._client.delete_bucket_lifecycle("streetvision")
    code, findings, _ = _in_profile(s3, capsys)
    assert code == 1
    assert (
        "-> have an admin run: kubectl delete job streetvision-minio-setup --namespace"
        " streetvision-store; kubectl apply -k manifests/minio" in findings["checkpoint expiry"]
    )

    _data(f"{PROFILE}/configmaps/streetvision-store", STREETVISION_S3_ENDPOINT="other:9000")(
        profile
    )
    code, findings, _ = _in_profile(s3, capsys)
    assert code == 0
    assert (
        "-> mc ilm rule add ALIAS/streetvision --prefix checkpoints/ --expire-days 30"
        in findings["checkpoint expiry"]
    )


def _node(answers: Answers, name: str) -> Any:
    return next(node for node in answers[NODES]["items"] if node["metadata"]["name"] == name)


def _busy(answers: Answers) -> None:
    """What runs on gpu-1 runs on gpu-2 as well."""
    pods = answers[PODS]["items"]
    twin = copy.deepcopy(pods[0])
    twin["spec"]["nodeName"] = "gpu-2"
    pods.append(twin)


def _unlabelled(answers: Answers) -> None:
    for name in ("gpu-1", "gpu-2"):
        del _node(answers, name)["metadata"]["labels"]["nvidia.com/gpu.product"]


def _small_nodes(answers: Answers) -> None:
    for name in ("gpu-1", "gpu-2"):
        _node(answers, name)["status"]["allocatable"]["memory"] = "64Gi"


def _out_of_order(answers: Answers) -> None:
    _node(answers, "gpu-1")["spec"]["unschedulable"] = True
    _node(answers, "gpu-2")["status"]["conditions"][1]["status"] = "Unknown"


def _foreign_taint(answers: Answers) -> None:
    for name in ("gpu-1", "gpu-2"):
        _node(answers, name)["spec"]["taints"].append(
            {"key": "team", "value": "vision", "effect": "NoExecute"}
        )


@pytest.mark.parametrize(
    ("change", "found", "advice"),
    [
        (
            _busy,
            (
                "2 GPUs, 16 CPUs, 96Gi memory: no node has it free (gpu-1: 1 of 2 GPUs free; gpu-2:"
                " 1 of 2 GPUs free)"
            ),
            "a run waits until other pods end; now fits: --profile a6000x1, cpu",
        ),
        (
            _unlabelled,
            (
                "no node can ever hold it (3 nodes without label"
                " nvidia.com/gpu.product=NVIDIA-RTX-A6000)"
            ),
            (
                "label the nodes (GPU feature discovery does), or add such a node, unless an"
                " autoscaler does; now fits: --profile cpu"
            ),
        ),
        (
            _small_nodes,
            (
                "no node can ever hold it (gpu-1: 64Gi of 96Gi memory; gpu-2: 64Gi of 96Gi memory;"
                " 1 node without label"
            ),
            "now fits: --profile a6000x1, cpu",
        ),
        (
            _out_of_order,
            "1 node cordoned; 1 node not ready; 1 node without label",
            "now fits: --profile cpu",
        ),
        (_foreign_taint, "2 nodes tainted team", "now fits: --profile cpu"),
    ],
)
def test_nodes_that_cannot_hold_training(
    single_user: Answers,
    s3: StoreSettings,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    found: str,
    advice: str,
) -> None:
    change(single_user)
    code, findings, _ = _in_single_user(s3, capsys)
    assert code == 1
    assert list(_not_ok(findings)) == ["nodes for training steps"]
    text, _, told = findings["nodes for training steps"].partition(" -> ")
    assert found in text
    assert advice in told

    code, findings, _ = _in_single_user(s3, capsys, "--profile", "cpu")
    assert (code, _not_ok(findings)) == (0, {})


def test_a_node_with_two_cpus_is_too_small_for_the_heavy_steps(
    single_user: Answers, s3: StoreSettings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    single_user[NODES]["items"] = [_node(single_user, "cpu-1")]
    _node(single_user, "cpu-1")["status"]["allocatable"] |= {"cpu": "2", "memory": "3900Mi"}
    single_user[PODS]["items"] = []
    assert _in_single_user(s3, capsys, "--profile", "cpu")[0] == 0

    own = tmp_path / "own.yaml"
    own.write_text("heavy: {cpu_request: 4, cpu_limit: 4}\ntraining: {}\n")
    code, findings, _ = _in_single_user(s3, capsys, "--profile", str(own))
    assert code == 1
    assert "no node can ever hold it (cpu-1: 2 of 4 CPUs)" in findings["nodes for heavy steps"]
    assert (
        "lower the requests in a profile of your own; now fits: --profile cpu"
        in findings["nodes for heavy steps"]
    )


def test_without_a_look_at_foreign_pods_nodes_are_taken_as_empty(
    single_user: Answers, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    single_user[PODS] = 403
    code, findings, _ = _in_single_user(s3, capsys)
    assert code == 0
    assert (
        "gpu-1, gpu-2 can hold one when empty (what runs there may not be looked at)"
        in findings["nodes for training steps"]
    )


def test_requests_of_recorded_pods() -> None:
    """Training asked for 1 CPU, 6Gi and 2 GPUs.

    Argo's container beside it got 50m and 128Mi from a LimitRange.
    """
    from kubernetes.client import ApiClient

    recorded = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, **_recorded("api/pods.json")}
    pods = (
        ApiClient()
        .deserialize(type("Answer", (), {"data": json.dumps(recorded)}), "V1PodList")
        .items
    )
    training = next(pod for pod in pods if pod.metadata.labels["streetvision/cost"] == "training")
    requests = capacity.pod_requests(training.spec)
    shown = [
        capacity.amount_text(name, requests[name]) for name in ("cpu", "memory", "nvidia.com/gpu")
    ]
    assert shown == ["1.05 CPUs", "6.125Gi memory", "2 GPUs"]


def test_sidecars_add_to_a_pod_and_init_containers_do_not() -> None:
    from kubernetes.client import V1Container, V1PodSpec, V1ResourceRequirements

    def container(name: str, cpu: str, policy: str | None = None) -> V1Container:
        resources = V1ResourceRequirements(requests={"cpu": cpu})
        return V1Container(name=name, resources=resources, restart_policy=policy)

    spec = V1PodSpec(
        containers=[container("main", "1"), container("wait", "500m"), V1Container(name="none")],
        init_containers=[container("init", "1700m"), container("proxy", "100m", "Always")],
        overhead={"cpu": "50m"},
    )
    assert capacity.amount_text("cpu", capacity.pod_requests(spec)["cpu"]) == "1.75 CPUs"


def test_a_quota_for_some_pods_only_is_not_judged(
    profile: Answers, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    found = profile[f"{PROFILE}/resourcequotas"]["items"][0]
    found["spec"]["scopes"] = ["NotTerminating"]
    found["status"]["used"]["requests.nvidia.com/gpu"] = "2"
    code, findings, _ = _in_profile(s3, capsys)
    assert code == 0
    assert "streetvision counts some pods only, not judged" in findings["quota"]


IMAGE = "registry.example/streetvision/cpu:evaluate-src-0"


def _event(image: str, reason: str, message: str, when: str) -> Any:
    return {
        "metadata": {
            "name": f"step.{when[-3:-1]}",
            "namespace": "kubeflow",
            "creationTimestamp": when,
        },
        "involvedObject": {"kind": "Pod", "name": "step", "namespace": "kubeflow"},
        "reason": reason,
        "message": message.replace("IMAGE", image),
        "type": "Warning" if reason == "Failed" else "Normal",
        "lastTimestamp": when,
    }


NOT_FOUND = (
    'Failed to pull image "IMAGE": rpc error: code = NotFound desc = failed to pull and unpack'
    ' image "IMAGE": failed to resolve reference: not found'
)


def _pull(answers: Answers, monkeypatch: pytest.MonkeyPatch, *events: Any) -> None:
    """One image, on no node, and these events."""
    monkeypatch.setattr("pipelines.catalog.images_of", lambda *options: (IMAGE,))
    answers[f"{SINGLE_USER}/events?involvedObject.kind=Pod"]["items"] = list(events)


def test_a_failed_pull_is_missing_with_the_nodes_words(
    single_user: Answers,
    s3: StoreSettings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = _event(IMAGE, "Failed", NOT_FOUND, "2026-11-27T02:00:05Z")
    again = _event(IMAGE, "BackOff", 'Back-off pulling image "IMAGE"', "2026-11-27T02:00:05Z")
    _pull(single_user, monkeypatch, failed, again)
    code, findings, _ = _in_single_user(s3, capsys)
    assert code == 1
    assert (
        f"1 of 1 cannot be pulled: {IMAGE}: rpc error: code = NotFound desc" in findings["images"]
    )
    assert (
        "-> python -m pipelines images --push, if it is not in the registry" in findings["images"]
    )

    pulled = _event(
        IMAGE, "Pulled", 'Successfully pulled image "IMAGE" in 2s', "2026-11-27T02:01:00Z"
    )
    _pull(single_user, monkeypatch, failed, again, pulled)
    assert _in_single_user(s3, capsys)[1]["images"].startswith("unknown ")


def test_a_pod_that_waits_for_its_image_is_a_failed_pull(
    single_user: Answers,
    s3: StoreSettings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _pull(single_user, monkeypatch)
    pod = copy.deepcopy(_recorded("api/pods.json")["items"][0])
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off: pull access denied"}}
    status = {
        "name": "main",
        "image": IMAGE,
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": waiting,
    }
    pod["status"] = {"phase": "Pending", "containerStatuses": [status]}
    single_user[f"{SINGLE_USER}/pods?app.kubernetes.io/part-of=streetvision"]["items"] = [pod]
    code, findings, _ = _in_single_user(s3, capsys)
    assert code == 1
    assert "Back-off: pull access denied" in findings["images"]


def test_images_on_no_node_are_unknown_with_the_test_that_settles_it(
    single_user: Answers,
    s3: StoreSettings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    _pull(single_user, monkeypatch)
    single_user[f"{SINGLE_USER}/secrets/registry"] = {"data": {}, "metadata": {"name": "registry"}}
    own = tmp_path / "own.yaml"
    own.write_text("training: {}\nsecrets: {image_pull: [registry]}\n")
    code, findings, _ = _in_single_user(s3, capsys, "--profile", str(own))
    assert code == 0
    assert findings["images"].startswith(f"unknown 1 of 1 are on no node yet: {IMAGE} ")

    # The pod that the command makes is one that Kubernetes and the strictest Pod Security level
    # take.
    words = shlex.split(findings["images"].partition("-> ")[2])
    assert words[:7] == ["kubectl", "run", "pull", "--namespace", "kubeflow", "--image", IMAGE]
    pod = json.loads(words[words.index("--overrides") + 1])
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pull"}, **pod}
    kubernetes_validate.validate(whole, kubernetes_validate.latest_version(), strict=True)

    own.write_text(
        "training: {}\nimage_pull_policy: Never\nsecrets: {image_pull: [registry, absent]}\n"
    )
    code, findings, _ = _in_single_user(s3, capsys, "--profile", str(own))
    assert code == 1
    assert f"1 of 1 are on no node, and image_pull_policy is Never: {IMAGE}" in findings["images"]
    assert "absent not there: no step's image can be pulled" in findings["image pull secrets"]


QUEUES = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueueList", "metadata": {}}
MANAGER = {
    "metadata": {"name": "kueue-manager-config"},
    "data": {"controller_manager_config.yaml": ""},
}


@pytest.mark.parametrize(
    ("queues", "manager", "says"),
    [
        (404, 404, "MISSING Kueue is not installed: --queue has no effect"),
        (["other"], 404, "MISSING no LocalQueue gpu, there are: other"),
        (
            ["gpu"],
            403,
            "unknown LocalQueue gpu is there; whether Kueue manages pods may not be looked at",
        ),
        (["gpu"], "batch/job", "MISSING LocalQueue gpu is there, but Kueue does not manage pods"),
        (["gpu"], "pod", "ok LocalQueue gpu, and Kueue manages pods"),
    ],
)
def test_a_queue_has_an_effect_only_where_kueue_manages_pods(
    single_user: Answers,
    s3: StoreSettings,
    capsys: pytest.CaptureFixture[str],
    queues: int | list[str],
    manager: int | str,
    says: str,
) -> None:
    """Kueue's own default configuration has batch/job and others, and leaves pod out."""
    items = [{"metadata": {"name": name}} for name in queues] if isinstance(queues, list) else []
    single_user[KUEUE] = QUEUES | {"items": items} if isinstance(queues, list) else queues
    configuration = {
        "kind": "Configuration",
        "integrations": {"frameworks": ["batch/job", manager]},
    }
    data = {"controller_manager_config.yaml": yaml.safe_dump(configuration)}
    single_user[KUEUE_CONFIG] = MANAGER | {"data": data} if isinstance(manager, str) else manager
    _, findings, _ = _in_single_user(s3, capsys, "--queue", "gpu")
    assert says in findings["queue"]
    assert "queue" not in _in_single_user(s3, capsys)[1]


def test_credentials_of_the_pods_own_are_unknown(
    single_user: Answers, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    single_user[LAUNCHER]["data"]["defaultPipelineRoot"] = "s3://streetvision/runs"
    code, findings, _ = _in_single_user(s3, capsys)
    assert code == 0
    assert "pods take the credentials from their environment" in findings["pipeline root"]


def test_without_a_place_for_checkpoints_a_lost_pod_starts_anew(
    single_user: Answers, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    del single_user[STORE_CONFIG]["data"]["STREETVISION_CHECKPOINT_STORE"]
    code, findings, _ = _in_single_user(s3, capsys)
    assert code == 0
    assert (
        "is not set, so a lost pod starts its training anew -> set it in streetvision-store"
        in findings["store settings"]
    )
    assert "nothing to check" in findings["checkpoints"]


TRAINER = "/apis/trainer.kubeflow.org/v1alpha1"
SERVED = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": "trainer.kubeflow.org/v1alpha1",
    "resources": [
        {
            "name": "trainjobs",
            "singularName": "trainjob",
            "namespaced": True,
            "kind": "TrainJob",
            "verbs": ["create", "delete", "get"],
        }
    ],
}


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("", "ok trainer.kubeflow.org/v1alpha1 with TrainingRuntime streetvision"),
        ("trainer", "MISSING trainer.kubeflow.org/v1alpha1 is not served: a training on 2 nodes"),
        ("runtime", "MISSING TrainingRuntime streetvision is not there -> add components/multi-"),
        ("rights", "MISSING streetvision-runner may not create trainjobs, get trainjobs, delete"),
        ("store", "MISSING streetvision-store has no STREETVISION_CHECKPOINT_STORE"),
    ],
)
def test_several_nodes_need_kubeflow_trainer_rights_and_a_store(
    single_user: Answers,
    s3: StoreSettings,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    missing: str,
    says: str,
) -> None:
    single_user[TRAINER] = single_user[f"{TRAINER}/"] = 404 if missing == "trainer" else SERVED
    runtime = f"{TRAINER}/namespaces/kubeflow/trainingruntimes/streetvision"
    single_user[runtime] = 404 if missing == "runtime" else {"kind": "TrainingRuntime"}
    if missing == "rights":
        single_user[REVIEW]["status"] = {"allowed": False}
    if missing == "store":
        del single_user[STORE_CONFIG]["data"]["STREETVISION_CHECKPOINT_STORE"]
    file = tmp_path / "two.yaml"
    file.write_text("training: {n_nodes: 2, cpu_request: 100m, memory_request: 256Mi}\n")
    _, findings, _ = _in_single_user(s3, capsys, "--profile", str(file))
    assert says in findings["training nodes"]
    assert "training nodes" not in _in_single_user(s3, capsys, "--profile", "cpu")[1]


def test_every_node_of_a_training_needs_room(
    single_user: Answers, s3: StoreSettings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "many.yaml"
    file.write_text("training: {n_nodes: 500, cpu_request: 100m, memory_request: 256Mi}\n")
    _, findings, _ = _in_single_user(s3, capsys, "--profile", str(file))
    assert (
        "MISSING 500 times 100m CPUs, 256Mi memory: there is room for"
        in (findings["nodes for training steps"])
    )
