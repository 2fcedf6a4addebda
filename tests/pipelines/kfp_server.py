"""An HTTP server that speaks the paths of KFP's v2beta1 API which the command line uses.

Every body is read by the models of kfp-server-api: an unknown field or a wrong type is answered with 400.
"""

import contextlib
import email.parser
import email.policy
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import yaml

Document = dict[str, Any]
PREFIX = "/apis/v2beta1"


class RefusedError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class KfpServer(ThreadingHTTPServer):
    """The state that a test looks at. `token`: what must be asked with; `multi_user`: whether namespaces count."""

    daemon_threads = True

    def __init__(self, token: str | None, multi_user: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token, self.multi_user = token, multi_user
        self.cookie: str | None = None
        self.login_page = False
        self.pipelines: dict[str, Document] = {}
        self.versions: dict[str, Document] = {}
        self.packages: dict[str, Document] = {}
        self.experiments: dict[str, Document] = {}
        self.runs: dict[str, Document] = {}
        self.recurring: dict[str, Document] = {}
        self.script: list[Document] = []  # what is merged into a run, one entry for each look at it
        self.fail_next: list[RefusedError] = []
        self.requests: list[str] = []
        self._count = 0

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def new_id(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._count}"


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
        try:
            if self.server.login_page:
                return self._answer(200, "text/html", b"<html>log in</html>")
            self._authenticate()
            if self.server.fail_next and "healthz" not in parts.path:
                raise self.server.fail_next.pop(0)
            document = self._route(parts.path, {k: v[0] for k, v in parse_qs(parts.query).items()}, body)
        except RefusedError as error:
            return self._answer(error.status, "application/json", json.dumps({"message": str(error)}).encode())
        if isinstance(document, str):
            return self._answer(200, "text/plain", document.encode())
        return self._answer(200, "application/json", json.dumps(document).encode())

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815

    def _authenticate(self) -> None:
        if self.server.token and self.headers.get("authorization") != f"Bearer {self.server.token}":
            raise RefusedError(401, "the request is not authenticated")
        if self.server.cookie and self.headers.get("Cookie") != self.server.cookie:
            raise RefusedError(401, "the session has expired")

    def _route(self, path: str, query: dict[str, str], body: bytes) -> Document | str:
        for (method, pattern), answer in ROUTES.items():
            match = re.fullmatch(pattern, path)
            if match and method == self.command:
                if method == "POST" and "multipart" not in self.headers.get("Content-Type", "") and body:
                    return answer(self.server, query, json.loads(body), *match.groups())
                content = _file(self.headers["Content-Type"], body) if method == "POST" and body else None
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
    parts = {part.get_param("name", header="content-disposition"): part for part in message.iter_parts()}
    return dict(next(yaml.safe_load_all(parts["uploadfile"].get_payload(decode=True))))


def _namespace(server: KfpServer, given: str | None) -> None:
    if not server.multi_user and given:
        raise RefusedError(400, "in single-user mode, a namespace must not be given")
    if server.multi_user and given != "streetvision":
        raise RefusedError(403, f"no access to namespace {given!r}")


def _page(items: list[Document], key: str, query: dict[str, str]) -> Document:
    size, start = int(query.get("page_size") or 1), int(query.get("page_token") or 0)
    size = min(size, 2)  # small pages: the client must follow them
    answer: Document = {key: items[start : start + size]}
    if start + size < len(items):
        answer["next_page_token"] = str(start + size)
    return answer


def _list_pipelines(server: KfpServer, query: dict[str, str], body: Any) -> Document:
    _namespace(server, query.get("namespace"))
    return _page(list(server.pipelines.values()), "pipelines", query)


def _create_pipeline(server: KfpServer, query: dict[str, str], body: Document) -> Document:
    _model(body, "V2beta1Pipeline")
    _namespace(server, body.get("namespace"))
    if any(known["display_name"] == body["display_name"] for known in server.pipelines.values()):
        raise RefusedError(409, f"pipeline {body['display_name']} already exists")
    pipeline = {**body, "pipeline_id": server.new_id("pipeline")}
    server.pipelines[pipeline["pipeline_id"]] = pipeline
    return pipeline


def _list_versions(server: KfpServer, query: dict[str, str], body: Any, pipeline: str) -> Document:
    return _page([v for v in server.versions.values() if v["pipeline_id"] == pipeline], "pipeline_versions", query)


def _upload_version(server: KfpServer, query: dict[str, str], body: Document) -> Document:
    if query["pipelineid"] not in server.pipelines:
        raise RefusedError(404, f"pipeline {query['pipelineid']} not found")
    if not {"pipelineInfo", "deploymentSpec", "root"} <= body.keys():
        raise RefusedError(400, "the file is not a pipeline spec")
    names = [v["display_name"] for v in server.versions.values()]
    if query["name"] in names:
        raise RefusedError(409, f"version {query['name']} already exists")
    version_id = server.new_id("version")
    version = {"pipeline_id": query["pipelineid"], "pipeline_version_id": version_id, "display_name": query["name"]}
    server.versions[version_id], server.packages[version_id] = version, body
    return version


def _list_experiments(server: KfpServer, query: dict[str, str], body: Any) -> Document:
    _namespace(server, query.get("namespace"))
    wanted = json.loads(query["filter"])["predicates"][0]["stringValue"] if "filter" in query else None
    found = [e for e in server.experiments.values() if wanted in (None, e["display_name"])]
    return {"experiments": found} if found else {}


def _create_experiment(server: KfpServer, query: dict[str, str], body: Document) -> Document:
    _model(body, "V2beta1Experiment")
    _namespace(server, body.get("namespace"))
    experiment = {**body, "experiment_id": server.new_id("experiment")}
    server.experiments[experiment["experiment_id"]] = experiment
    return experiment


def _check_job(server: KfpServer, body: Document) -> None:
    if body.get("experiment_id") not in server.experiments:
        raise RefusedError(404, f"experiment {body.get('experiment_id')} not found")
    reference = body["pipeline_version_reference"]
    if reference["pipeline_version_id"] not in server.versions:
        raise RefusedError(404, "version not found")
    spec = server.packages[reference["pipeline_version_id"]]
    known = spec["root"]["inputDefinitions"]["parameters"]
    unknown = set(body["runtime_config"].get("parameters", {})) - set(known)
    if unknown:
        raise RefusedError(400, f"parameters {sorted(unknown)} are not inputs of the pipeline")


def _create_run(server: KfpServer, query: dict[str, str], body: Document) -> Document:
    _model(body, "V2beta1Run")
    _check_job(server, body)
    run = {**body, "run_id": server.new_id("run"), "state": "PENDING"}
    server.runs[run["run_id"]] = run
    return run


def _get_run(server: KfpServer, query: dict[str, str], body: Any, run_id: str) -> Document:
    if run_id not in server.runs:
        raise RefusedError(404, f"run {run_id} not found")
    if server.script:
        server.runs[run_id] |= server.script.pop(0)
    return server.runs[run_id]


def _list_runs(server: KfpServer, query: dict[str, str], body: Any) -> Document:
    _namespace(server, query.get("namespace"))
    return {"runs": list(server.runs.values())[::-1][:1]}


def _create_recurring(server: KfpServer, query: dict[str, str], body: Document) -> Document:
    _model(body, "V2beta1RecurringRun")
    _check_job(server, body)
    item = {**body, "recurring_run_id": server.new_id("recurring"), "status": body["mode"] + "D"}
    server.recurring[item["recurring_run_id"]] = item
    return item


def _list_recurring(server: KfpServer, query: dict[str, str], body: Any) -> Document:
    _namespace(server, query.get("namespace"))
    return _page(list(server.recurring.values()), "recurringRuns", query)


def _change_recurring(server: KfpServer, query: dict[str, str], body: Any, item: str, change: str) -> Document:
    server.recurring[item]["status"] = change.upper() + "D"
    return {}


def _delete_recurring(server: KfpServer, query: dict[str, str], body: Any, item: str) -> Document:
    del server.recurring[item]
    return {}


def _log(server: KfpServer, query: dict[str, str], body: Any, run_id: str, pod: str) -> str:
    return f"what {pod} wrote\n"


def _health(server: KfpServer, query: dict[str, str], body: Any) -> Document:
    return {"multi_user": server.multi_user}


ROUTES: dict[tuple[str, str], Callable[..., Document | str]] = {
    ("GET", f"{PREFIX}/healthz"): _health,
    ("GET", f"{PREFIX}/pipelines"): _list_pipelines,
    ("POST", f"{PREFIX}/pipelines"): _create_pipeline,
    ("GET", f"{PREFIX}/pipelines/([^/]+)/versions"): _list_versions,
    ("POST", f"{PREFIX}/pipelines/upload_version"): _upload_version,
    ("GET", f"{PREFIX}/experiments"): _list_experiments,
    ("POST", f"{PREFIX}/experiments"): _create_experiment,
    ("GET", f"{PREFIX}/runs"): _list_runs,
    ("POST", f"{PREFIX}/runs"): _create_run,
    ("GET", f"{PREFIX}/runs/([^/]+)"): _get_run,
    ("GET", f"{PREFIX}/recurringruns"): _list_recurring,
    ("POST", f"{PREFIX}/recurringruns"): _create_recurring,
    ("POST", f"{PREFIX}/recurringruns/([^/]+):(enable|disable)"): _change_recurring,
    ("DELETE", f"{PREFIX}/recurringruns/([^/]+)"): _delete_recurring,
    ("GET", "/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log"): _log,
}


@contextlib.contextmanager
def kfp_server(*, token: str | None = None, multi_user: bool = True) -> Iterator[KfpServer]:
    """Run one."""
    with KfpServer(token, multi_user) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
