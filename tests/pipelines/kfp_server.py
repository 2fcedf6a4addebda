"""An HTTP server that speaks the paths of KFP's v2beta1 API which the command line uses.

It stands for the API server of KFP 2.17.0. Bodies of requests are read by the models of
kfp-server-api: an unknown field or a wrong type is answered with 400. Answers have the form of
those that a real back end gave, which tests/pipelines/test_kfp_server.py checks against
tests/recordings; refusals are taken from there.
"""

import contextlib
import copy
import email.parser
import email.policy
import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import yaml

Document = dict[str, Any]
PREFIX = "/apis/v2beta1"
RECORDINGS = Path(__file__).parents[1] / "recordings"
NAMESPACE = "streetvision"  # the only one that the token of a multi-user server may use
_GRPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13, 503: 14}
_NO_TIME = "1970-01-01T00:00:00Z"


class RefusedError(Exception):
    """An answer other than 200; `document` replaces the one that is made of the message."""

    def __init__(self, status: int, message: str, document: Document | None = None) -> None:
        super().__init__(message)
        self.status = status
        detail = {
            "@type": "type.googleapis.com/google.rpc.Status",
            "code": _GRPC_CODES[status],
            "message": message,
        }
        made = {
            "code": _GRPC_CODES[status],
            "details": [detail],
            "message": f"The request failed: {message}",
        }
        self.document = document or made


class KfpServer(ThreadingHTTPServer):
    """The state that a test looks at.

    `token`: what must be asked with; `multi_user`: whether namespaces count.
    """

    daemon_threads = True

    def __init__(self, token: str | None, multi_user: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token, self.multi_user = token, multi_user
        self.cookie: str | None = None
        self.wrong_token = "runs-garbage"  # the recorded refusal of a token that is not `token`
        self.login_page = False
        self.has_interface = False
        self.pipelines: dict[str, Document] = {}
        self.versions: dict[str, Document] = {}
        self.packages: dict[str, Document] = {}
        self.experiments: dict[str, Document] = {}
        self.runs: dict[str, Document] = {}
        self.recurring: dict[str, Document] = {}
        self.script: list[Document] = []  # what is merged into a run, one entry for each look at it
        self.fail_next: list[RefusedError] = []
        self.fail_where: dict[str, list[RefusedError]] = {}  # of paths that contain the key
        self.requests: list[str] = []
        self._count = 0

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def new_id(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._count}"

    def now(self) -> str:
        """A time that is later with each new object."""
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._count)
        return f"{moment:%Y-%m-%dT%H:%M:%SZ}"

    def add_run(self, run: Document, pipeline: str, spec: Document | None = None) -> None:
        """Hold a run as it was recorded, with its pipeline of that name and the version's
        specification.
        """
        reference = run["pipeline_version_reference"]
        pipeline_id, version_id = reference["pipeline_id"], reference["pipeline_version_id"]
        self.runs[run["run_id"]] = copy.deepcopy(run)
        self.pipelines[pipeline_id] = _pipeline(self, pipeline_id, pipeline)
        self.versions[version_id] = _version(self, pipeline_id, version_id, "recorded")
        self.packages[version_id] = spec or {}


def recorded(name: str) -> Document:
    """Return a recorded answer by its path below tests/recordings, without .json."""
    return dict(json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8")))


def _model(document: Any, name: str) -> None:
    """Refuse what the model `name` of kfp-server-api has no field for, or of another type."""
    model = getattr(kfp_server_api, name)
    unknown = set(document) - set(model.attribute_map.values())
    if unknown:
        raise RefusedError(400, f"unknown field(s) {sorted(unknown)} in {name}")
    client = kfp_server_api.ApiClient()
    try:
        client.deserialize(type("Answer", (), {"data": json.dumps(document)}), name)
    except (ValueError, kfp_server_api.ApiException) as error:
        raise RefusedError(400, f"{name}: {error}") from error


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: KfpServer

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        self.server.requests.append(f"{self.command} {parts.path}")
        if self.server.login_page or (parts.path == "/" and self.server.has_interface):
            return self._answer(200, "text/html", b"<html></html>")
        try:
            self._authenticate(parts.path)
            if self.server.fail_next and "healthz" not in parts.path:
                raise self.server.fail_next.pop(0)
            for part, refusals in self.server.fail_where.items():
                if part in parts.path and refusals:
                    raise refusals.pop(0)
            document = self._route(
                parts.path, {k: v[0] for k, v in parse_qs(parts.query).items()}, body
            )
        except RefusedError as error:
            return self._answer(
                error.status, "application/json", json.dumps(error.document).encode()
            )
        return self._answer(200, "application/json", json.dumps(document).encode())

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815

    def _authenticate(self, path: str) -> None:
        """Refuse as KFP does in multi-user mode; the health check answers everybody."""
        if path.endswith("healthz"):
            return
        given = self.headers.get("authorization")
        if self.server.token and given != f"Bearer {self.server.token}":
            name = f"api-multi-user/{self.server.wrong_token if given else 'runs-no-identity'}"
            raise RefusedError(401, "not authenticated", recorded(name))
        if self.server.cookie and self.headers.get("Cookie") != self.server.cookie:
            raise RefusedError(
                401, "not authenticated", recorded("api-multi-user/runs-no-identity")
            )

    def _route(self, path: str, query: dict[str, str], body: bytes) -> Document:
        for (method, pattern), answer in ROUTES.items():
            match = re.fullmatch(pattern, path)
            if match and method == self.command:
                if (
                    method == "POST"
                    and "multipart" not in self.headers.get("Content-Type", "")
                    and body
                ):
                    return answer(self.server, query, json.loads(body), *match.groups())
                content = (
                    _file(self.headers["Content-Type"], body) if method == "POST" and body else None
                )
                return answer(self.server, query, content, *match.groups())
        raise RefusedError(404, f"{self.command} {path} is not a path of the API")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def _file(content_type: str, body: bytes) -> Document:
    """The pipeline package of a multipart upload: its first YAML document."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    parts = {
        part.get_param("name", header="content-disposition"): part for part in message.iter_parts()
    }
    return dict(next(yaml.safe_load_all(parts["uploadfile"].get_payload(decode=True))))


def _namespace(server: KfpServer, given: str | None, resource: str) -> None:
    if not server.multi_user and given:
        raise RefusedError(400, "in single-user mode, a namespace must not be given")
    if server.multi_user and not given:
        raise RefusedError(400, "no namespace", recorded("api-multi-user/runs-no-namespace"))
    if server.multi_user and given != NAMESPACE:
        text = json.dumps(recorded("api-multi-user/runs-forbidden"))
        text = text.replace("Namespace:streetvision", f"Namespace:{given}").replace(
            "Resource:runs", resource
        )
        raise RefusedError(403, "forbidden", json.loads(text))


def _page(items: list[Document], key: str, query: dict[str, str]) -> Document:
    size, start = int(query.get("page_size") or 1), int(query.get("page_token") or 0)
    size = min(size, 2)  # small pages: the client must follow them
    answer: Document = {key: items[start : start + size], "total_size": len(items)}
    if start + size < len(items):
        answer["next_page_token"] = str(start + size)
    return answer if items else {}


def _pipeline(server: KfpServer, pipeline_id: str, name: str) -> Document:
    return {
        "created_at": server.now(),
        "display_name": name,
        "name": name,
        "pipeline_id": pipeline_id,
    }


def _list_pipelines(server: KfpServer, query: dict[str, str], body: Any) -> Document:
    _namespace(server, query.get("namespace"), "Resource:pipelines")
    return _page(list(server.pipelines.values()), "pipelines", query)


def _get_pipeline(server: KfpServer, query: dict[str, str], body: Any, pipeline: str) -> Document:
    return _known(server.pipelines, pipeline, "Pipeline")


def _create_pipeline(server: KfpServer, query: dict[str, str], body: Document) -> Document:
    _model(body, "V2beta1Pipeline")
    _namespace(server, body.get("namespace"), "Resource:pipelines")
    if any(known["display_name"] == body["display_name"] for known in server.pipelines.values()):
        raise RefusedError(409, f"pipeline {body['display_name']} already exists")
    pipeline = _pipeline(server, server.new_id("pipeline"), body["display_name"])
    server.pipelines[pipeline["pipeline_id"]] = pipeline
    return pipeline


def _version(server: KfpServer, pipeline: str, version: str, name: str) -> Document:
    return {
        "created_at": server.now(),
        "display_name": name,
        "name": name,
        "pipeline_id": pipeline,
        "pipeline_version_id": version,
    }


def _with_spec(server: KfpServer, version: Document) -> Document:
    return version | {"pipeline_spec": server.packages[version["pipeline_version_id"]]}


def _list_versions(server: KfpServer, query: dict[str, str], body: Any, pipeline: str) -> Document:
    found = [
        _with_spec(server, v) for v in server.versions.values() if v["pipeline_id"] == pipeline
    ]
    return _page(found, "pipeline_versions", query)


def _get_version(
    server: KfpServer, query: dict[str, str], body: Any, pipeline: str, version: str
) -> Document:
    return _with_spec(server, _known(server.versions, version, "PipelineVersion"))


def _upload_version(server: KfpServer, query: dict[str, str], body: Document) -> Document:
    if query["pipelineid"] not in server.pipelines:
        raise RefusedError(404, f"Pipeline {query['pipelineid']} not found")
    if not {"pipelineInfo", "deploymentSpec", "root"} <= body.keys():
        raise RefusedError(400, "the file is not a pipeline spec")
    names = [
        v["display_name"]
        for v in server.versions.values()
        if v["pipeline_id"] == query["pipelineid"]
    ]
    if query["name"] in names:
        raise RefusedError(409, f"version {query['name']} already exists")
    version_id = server.new_id("version")
    version = _version(server, query["pipelineid"], version_id, query["name"])
    server.versions[version_id], server.packages[version_id] = version, body
    return version


def _list_experiments(server: KfpServer, query: dict[str, str], body: Any) -> Document:
    _namespace(server, query.get("namespace"), "Resource:experiments")
    wanted = (
        json.loads(query["filter"])["predicates"][0]["stringValue"] if "filter" in query else None
    )
    found = [e for e in server.experiments.values() if wanted in (None, e["display_name"])]
    return {"experiments": found, "total_size": len(found)} if found else {}


def _create_experiment(server: KfpServer, query: dict[str, str], body: Document) -> Document:
    _model(body, "V2beta1Experiment")
    _namespace(server, body.get("namespace"), "Resource:experiments")
    experiment = {
        "created_at": server.now(),
        "display_name": body["display_name"],
        "experiment_id": server.new_id("experiment"),
        "last_run_created_at": _NO_TIME,
        "storage_state": "AVAILABLE",
    }
    server.experiments[experiment["experiment_id"]] = experiment
    return experiment


def _check_job(server: KfpServer, body: Document) -> None:
    if body.get("experiment_id") not in server.experiments:
        raise RefusedError(404, f"Experiment {body.get('experiment_id')} not found")
    reference = body["pipeline_version_reference"]
    if reference["pipeline_version_id"] not in server.versions:
        raise RefusedError(404, f"PipelineVersion {reference['pipeline_version_id']} not found")
    spec = server.packages[reference["pipeline_version_id"]]
    known = spec["root"]["inputDefinitions"]["parameters"]
    unknown = set(body["runtime_config"].get("parameters", {})) - set(known)
    if unknown:
        raise RefusedError(400, f"parameters {sorted(unknown)} are not inputs of the pipeline")


def _create_run(server: KfpServer, query: dict[str, str], body: Document) -> Document:
    _model(body, "V2beta1Run")
    _check_job(server, body)
    now = server.now()
    run = {
        **body,
        "run_id": server.new_id("run"),
        "created_at": now,
        "scheduled_at": now,
        "finished_at": _NO_TIME,
        "run_details": {},
        "state": "PENDING",
        "state_history": [{"state": "PENDING", "update_time": now}],
        "storage_state": "AVAILABLE",
    }
    server.runs[run["run_id"]] = run
    return run


def _get_run(server: KfpServer, query: dict[str, str], body: Any, run_id: str) -> Document:
    run = _known(server.runs, run_id, "Run")
    if server.script:
        run |= server.script.pop(0)
    return run


def _list_runs(server: KfpServer, query: dict[str, str], body: Any) -> Document:
    _namespace(server, query.get("namespace"), "Resource:runs")
    runs = [run | {"run_details": {}} for run in server.runs.values()]
    for predicate in json.loads(query.get("filter", "{}")).get("predicates", []):
        runs = [run for run in runs if run.get(predicate["key"]) == predicate["stringValue"]]
    field, _, order = query.get("sort_by", "").partition(" ")
    if field:
        runs.sort(key=lambda run: str(run[field]), reverse=order == "desc")
    return _page(runs, "runs", query)


def _terminate_run(server: KfpServer, query: dict[str, str], body: Any, run_id: str) -> Document:
    run = _known(server.runs, run_id, "Run")
    run["state"] = "CANCELING"
    run["state_history"] = [
        *run["state_history"],
        {"state": "CANCELING", "update_time": server.now()},
    ]
    return {}


def _create_recurring(server: KfpServer, query: dict[str, str], body: Document) -> Document:
    _model(body, "V2beta1RecurringRun")
    _check_job(server, body)
    now = server.now()
    item = {
        **body,
        "recurring_run_id": server.new_id("recurring"),
        "created_at": now,
        "updated_at": now,
        "namespace": body.get("namespace") or "kubeflow",
        "status": body["mode"] + "D",
    }
    # int64 is text in the JSON of protocol buffers.
    item["max_concurrency"] = str(item["max_concurrency"])
    periodic = item["trigger"].get("periodic_schedule")
    if periodic:
        periodic["interval_second"] = str(periodic["interval_second"])
    server.recurring[item["recurring_run_id"]] = item
    return item


def _list_recurring(server: KfpServer, query: dict[str, str], body: Any) -> Document:
    _namespace(server, query.get("namespace"), "Resource:jobs")
    return _page(list(server.recurring.values()), "recurringRuns", query)


def _change_recurring(
    server: KfpServer, query: dict[str, str], body: Any, item: str, change: str
) -> Document:
    server.recurring[item]["status"] = change.upper() + "D"
    return {}


def _delete_recurring(server: KfpServer, query: dict[str, str], body: Any, item: str) -> Document:
    del server.recurring[item]
    return {}


def _health(server: KfpServer, query: dict[str, str], body: Any) -> Document:
    return {
        "commit_sha": "unknown",
        "multi_user": server.multi_user,
        "pipeline_store": "database",
        "tag_name": "unknown",
    }


def _known(items: dict[str, Document], key: str, kind: str) -> Document:
    if key not in items:
        raise RefusedError(404, f"{kind} {key} not found")
    return items[key]


ROUTES: dict[tuple[str, str], Callable[..., Document]] = {
    ("GET", f"{PREFIX}/healthz"): _health,
    ("GET", f"{PREFIX}/pipelines"): _list_pipelines,
    ("POST", f"{PREFIX}/pipelines"): _create_pipeline,
    ("GET", f"{PREFIX}/pipelines/([^/]+)"): _get_pipeline,
    ("GET", f"{PREFIX}/pipelines/([^/]+)/versions"): _list_versions,
    ("GET", f"{PREFIX}/pipelines/([^/]+)/versions/([^/]+)"): _get_version,
    ("POST", f"{PREFIX}/pipelines/upload_version"): _upload_version,
    ("GET", f"{PREFIX}/experiments"): _list_experiments,
    ("POST", f"{PREFIX}/experiments"): _create_experiment,
    ("GET", f"{PREFIX}/runs"): _list_runs,
    ("POST", f"{PREFIX}/runs"): _create_run,
    ("GET", f"{PREFIX}/runs/([^/]+)"): _get_run,
    ("POST", f"{PREFIX}/runs/([^/]+):terminate"): _terminate_run,
    ("GET", f"{PREFIX}/recurringruns"): _list_recurring,
    ("POST", f"{PREFIX}/recurringruns"): _create_recurring,
    ("POST", f"{PREFIX}/recurringruns/([^/]+):(enable|disable)"): _change_recurring,
    ("DELETE", f"{PREFIX}/recurringruns/([^/]+)"): _delete_recurring,
}


@contextlib.contextmanager
def kfp_server(*, token: str | None = None, multi_user: bool = True) -> Iterator[KfpServer]:
    """Run one."""
    with KfpServer(token, multi_user) as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
