"""Check of a MinIO's release against those in which known vulnerabilities are fixed.

MinIO tells its version to nobody without credentials: the `Server` header of its health endpoint is
"MinIO" (or "Silo", the maintained build), and the version is in the answer to `admin:ServerInfo`,
which the policy of the user for people allows (manifests/minio/policies/team.json).
"""

import re
from dataclasses import dataclass

from minio.credentials import StaticProvider
from minio.error import MinioAdminException
from minio.minioadmin import MinioAdmin

from components.shared.contracts.documents import parse_json
from components.shared.contracts.errors import StreetVisionError, one_line
from components.shared.contracts.listing import shown
from components.shared.storage import StoreSettings
from components.shared.storage.errors import StoreUnavailableError
from components.shared.storage.retry import Answers, RetryingPool
from pipelines.doctor.findings import Passed, unknown, warning

_SERVERS = ("MinIO", "Silo")
_DEADLINE_SECONDS = 10.0
_VERSION = re.compile(r"(?:RELEASE\.)?(\d{4}-\d\d-\d\d)T(\d\d).(\d\d).(\d\d)Z")
_UPGRADE = (
    "change images: in manifests/minio/kustomization.yaml (manifests/README.md names maintained"
    " builds), then kubectl apply -k manifests/minio"
)
_LOOK = "as its administrator: mc admin info ALIAS"


@dataclass(frozen=True)
class _Fix:
    """release: the first that has the fix. source: upstream MinIO, or the maintained build."""

    release: str
    names: str
    effect: str


# Upstream's last release is that of the first line; later fixes are in maintained builds only.
# Sources: GHSA-jjjj-jwhf-8rgr; GHSA-9c4q-hq6p-c237 and GHSA-hv4r-mvr4-25vw; the advisories of
# pgsty/silo.
_FIXES = (
    _Fix(
        "2025-10-15T17:29:55Z",
        "CVE-2025-62506",
        "a restricted user makes accounts with more rights",
    ),
    _Fix(
        "2026-04-17T00:00:00Z",
        "CVE-2026-40344, CVE-2026-41145",
        "objects are written by whoever knows an access key, without its secret",
    ),
    _Fix(
        "2026-09-16T00:00:00Z",
        "SN-2026-011",
        "a presigned address of one object copies any other",
    ),
)


def minio_release(settings: StoreSettings) -> Passed:
    """The store is another one than MinIO, or a MinIO with the fixes of known vulnerabilities.

    Raises CheckError: a warning for an older release, unknown where the version is not told.
    """
    pool = RetryingPool(ca_file=settings.ca_file, deadline_seconds=_DEADLINE_SECONDS)
    server = _server(pool, settings)
    if server not in _SERVERS:
        return Passed(f"{settings.endpoint} is no MinIO (it says that it is {shown(server)})")

    version = _version(pool, settings)
    found = _VERSION.fullmatch(version)
    if found is None:
        raise unknown(
            f"{settings.endpoint} is a {server} of version {shown(version)}, which is no release",
            _LOOK,
        )

    release = "{}T{}:{}:{}Z".format(*found.groups())
    open_fixes = [fix for fix in _FIXES if release < fix.release]
    if open_fixes:
        names = "; ".join(f"{fix.names} ({fix.effect})" for fix in open_fixes)
        raise warning(
            f"{settings.endpoint} is a {server} of {release}, older than {open_fixes[-1].release},"
            f" which mends {names}",
            f"{_UPGRADE}; a build that carries the fixes under an older version may stay",
        )

    return Passed(f"{settings.endpoint} is a {server} of {release}")


def _server(pool: RetryingPool, settings: StoreSettings) -> str:
    """Return the `Server` header of the health endpoint; other stores take it for an object."""
    scheme = "https" if settings.secure else "http"
    try:
        with pool.operation(Answers.OBJECT):
            answer = pool.request("GET", f"{scheme}://{settings.endpoint}/minio/health/live")
    except StoreUnavailableError as error:
        raise unknown(f"{settings.endpoint} did not answer ({one_line(error)})") from None
    return str(answer.headers.get("Server", ""))


def _version(pool: RetryingPool, settings: StoreSettings) -> str:
    admin = MinioAdmin(
        endpoint=settings.endpoint,
        credentials=StaticProvider(settings.access_key, settings.secret_key),
        secure=settings.secure,
        http_client=pool,
    )
    where = f"{settings.endpoint} is a MinIO"
    try:
        with pool.operation(Answers.OBJECT):
            document = parse_json(admin.info(), "admin info")
        return str(document["servers"][0]["version"])
    except MinioAdminException:
        raise unknown(f"{where} and does not tell its version to this user", _LOOK) from None
    except (StreetVisionError, LookupError, TypeError, ValueError):
        raise unknown(f"{where} whose version cannot be read", _LOOK) from None
