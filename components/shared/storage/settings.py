"""Address and credentials of the object store, from the environment or a mounted secret.

A variable that is not set is looked for as a file of the same name in the directory
STREETVISION_S3_SECRET_DIR, which is how a Kubernetes Secret looks when it is mounted.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError

_SECURE = {"": True, "true": True, "1": True, "false": False, "0": False}
_ENDPOINT = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9a-fA-F:]+\](:[0-9]{1,5})?")


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """Address and credentials of a store.

    endpoint: host[:port]; ca_file: PEM of the authorities to trust, None for certifi's.
    """

    endpoint: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str = "us-east-1"
    secure: bool = True
    ca_file: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "StoreSettings":
        """Read the variables `S3_VARIABLES`.

        Raises ConfigError naming every variable that is missing or wrong; a credential is never
        part of a message.
        """
        look = _Lookup(os.environ if environment is None else environment)
        endpoint = look.required(Variable.S3_ENDPOINT)
        if endpoint and not _ENDPOINT.fullmatch(endpoint):
            look.problems.append(
                f"{Variable.S3_ENDPOINT}={endpoint!r} must be host or host:port, without scheme and"
                " path"
            )

        access_key = look.required(Variable.S3_ACCESS_KEY)
        secret_key = look.required(Variable.S3_SECRET_KEY)

        secure = look.optional(Variable.S3_SECURE)
        if secure.lower() not in _SECURE:
            look.problems.append(f"{Variable.S3_SECURE}={secure!r} must be true or false")
        ca_file = look.optional(Variable.S3_CA_FILE) or None
        if ca_file and not Path(ca_file).is_file():
            look.problems.append(
                f"{Variable.S3_CA_FILE}={ca_file!r} does not exist; give a PEM file"
            )

        if look.problems:
            raise ConfigError("object store: " + "; ".join(look.problems))

        return cls(
            endpoint=endpoint,
            access_key=access_key,
            secret_key=secret_key,
            session_token=look.optional(Variable.S3_SESSION_TOKEN) or None,
            region=look.optional(Variable.S3_REGION) or "us-east-1",
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
        if self._directory and not Path(self._directory).is_dir():
            self.problems.append(
                f"{Variable.S3_SECRET_DIR}={self._directory!r} is not a directory; mount the"
                " secret there"
            )

    def optional(self, name: str) -> str:
        value = self._environment.get(name, "").strip()
        file = Path(self._directory) / name if self._directory else None
        if not value and file is not None and file.is_file():
            value = file.read_text(encoding="utf-8").strip()
        return value

    def required(self, name: str) -> str:
        value = self.optional(name)
        if not value:
            where = (
                f" and not a file in {self._directory}"
                if self._directory
                else f" (or a file in {Variable.S3_SECRET_DIR})"
            )
            self.problems.append(f"{name} is not set{where}")

        return value
