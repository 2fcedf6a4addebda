"""Address and credentials of the object store, from the environment or a mounted secret.

A variable that is not set is looked for as a file of the same name in the directory
STREETVISION_S3_SECRET_DIR, which is how a Kubernetes Secret looks when it is mounted.

No message shows the value of a variable: of two that were swapped, one holds a credential.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.redaction import conceal

_SECURE = {"": True, "true": True, "1": True, "false": False, "0": False}
# What a header may carry: a wrapped value has line breaks, a pasted one may have any character.
_CREDENTIAL = re.compile(r"[\x21-\x7e]+")
_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_ENDPOINT = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9a-fA-F:]+\](:[0-9]{1,5})?")

_ENDPOINT_FORM = (
    "must be host or host:port, without scheme, user information and path; credentials belong into"
    f" {Variable.S3_ACCESS_KEY} and {Variable.S3_SECRET_KEY}"
)


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """Address and credentials of a store.

    endpoint: host[:port]; ca_file: PEM of the authorities to trust, None for certifi's. Raises
    ConfigError for an endpoint of another form and a credential that no header can carry.
    """

    endpoint: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str = "us-east-1"
    secure: bool = True
    ca_file: str | None = None

    def __post_init__(self) -> None:
        conceal(self.secret_key, self.session_token)
        given = {
            Variable.S3_ACCESS_KEY: self.access_key,
            Variable.S3_SECRET_KEY: self.secret_key,
            Variable.S3_SESSION_TOKEN: self.session_token,
        }
        problems = [
            f"{name} has a line break, a blank or a character that no header can carry; set it"
            " again, in one line"
            for name, value in given.items()
            if value and not _CREDENTIAL.fullmatch(value)
        ]
        if not _ENDPOINT.fullmatch(self.endpoint):
            problems.append(f"its endpoint {_ENDPOINT_FORM}")
        if problems:
            raise ConfigError("object store: " + "; ".join(problems))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "StoreSettings":
        """Read the variables `S3_VARIABLES`.

        Raises ConfigError naming every variable that is missing or wrong, never with its value.
        """
        look = _Lookup(os.environ if environment is None else environment)
        endpoint = look.required(Variable.S3_ENDPOINT)
        if endpoint and not _ENDPOINT.fullmatch(endpoint):
            look.refuse(Variable.S3_ENDPOINT, _ENDPOINT_FORM)

        access_key = look.required(Variable.S3_ACCESS_KEY)
        secret_key = look.required(Variable.S3_SECRET_KEY)

        secure = look.optional(Variable.S3_SECURE)
        if secure.lower() not in _SECURE:
            look.refuse(Variable.S3_SECURE, "must be true or false")
        region = look.optional(Variable.S3_REGION) or "us-east-1"
        if not _REGION.fullmatch(region):
            look.refuse(Variable.S3_REGION, "must be letters, digits, - and _, such as us-east-1")
        ca_file = look.optional(Variable.S3_CA_FILE) or None
        if ca_file and not os.path.isfile(ca_file):  # noqa: PTH113 - no error for any text
            look.refuse(Variable.S3_CA_FILE, "names no file; give a PEM file")

        if look.problems:
            raise ConfigError("object store: " + "; ".join(look.problems))

        return cls(
            endpoint=endpoint,
            access_key=access_key,
            secret_key=secret_key,
            session_token=look.optional(Variable.S3_SESSION_TOKEN) or None,
            region=region,
            secure=_SECURE[secure.lower()],
            ca_file=ca_file,
        )

    def to_environment(self) -> dict[str, str]:
        """Return the variables that `from_environment` reads, for a child process."""
        values = {
            Variable.S3_ENDPOINT: self.endpoint,
            Variable.S3_ACCESS_KEY: self.access_key,
            Variable.S3_SECRET_KEY: self.secret_key,
            Variable.S3_SESSION_TOKEN: self.session_token,
            Variable.S3_REGION: self.region,
            Variable.S3_SECURE: "true" if self.secure else "false",
            Variable.S3_CA_FILE: self.ca_file,
        }
        return {str(name): value for name, value in values.items() if value}


class _Lookup:
    """Environment first, then the mounted secret; collects what is missing."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.problems: list[str] = []
        self._environment = environment
        self._directory = environment.get(Variable.S3_SECRET_DIR, "")
        if self._directory and not os.path.isdir(self._directory):  # noqa: PTH112 - as above
            self.refuse(Variable.S3_SECRET_DIR, "names no directory; mount the secret there")
            self._directory = ""

    def refuse(self, name: str, expected: str) -> None:
        self.problems.append(f"{name} {expected}")

    def optional(self, name: str) -> str:
        value = self._environment.get(name, "").strip()
        file = Path(self._directory) / name if self._directory else None
        if not value and file is not None and file.is_file():
            value = file.read_text(encoding="utf-8", errors="replace").strip()
        return value

    def required(self, name: str) -> str:
        value = self.optional(name)
        if not value:
            folder = "the folder of" if self._directory else "a folder named by"
            self.refuse(name, f"is not set, and no file in {folder} {Variable.S3_SECRET_DIR}")

        return value
