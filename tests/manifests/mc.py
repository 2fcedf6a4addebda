"""MinIO's client and the server behind it, as far as the set-up job uses them.

Stands for `mc` and a MinIO: users, policies by IAM's rules, and service accounts, which every user
may make for himself unless a policy denies it. Keys come from standard input as in cmd/alias-set.go
and cmd/admin-user-add.go of minio/mc. Not checked against a real server.

Run as a script, its arguments are those of `mc`, and the folder of MC_STATE holds what it knows.
"""

import fnmatch
import json
import os
import sys
from pathlib import Path
from typing import Any

BUCKET = "streetvision"
_ARN = "arn:aws:s3:::"


def allows(policy: dict[str, Any], action: str, key: str = "", prefix: str | None = None) -> bool:
    """Whether a policy allows an action on an object, or on the bucket where there is no key.

    prefix: that of a listing. Source: IAM's evaluation, in which a denial wins.
    """
    resource = f"{_ARN}{BUCKET}/{key}" if key else f"{_ARN}{BUCKET}"
    effects = [
        statement["Effect"]
        for statement in policy["Statement"]
        if _applies(statement, action, resource, prefix)
    ]
    return "Allow" in effects and "Deny" not in effects


def _applies(statement: dict[str, Any], action: str, resource: str, prefix: str | None) -> bool:
    if not any(fnmatch.fnmatchcase(action, item) for item in statement["Action"]):
        return False
    resources = statement.get("Resource")
    if resources is not None and not any(fnmatch.fnmatchcase(resource, item) for item in resources):
        return False
    wanted = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix")
    return wanted is None or any(fnmatch.fnmatchcase(prefix or "", item) for item in wanted)


class Server:
    """What the server and the client's configuration know, kept in a file between two calls."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        file = folder / "state.json"
        known = json.loads(file.read_text()) if file.is_file() else {}
        self.users: dict[str, str] = known.get("users", {})
        self.policies: dict[str, Any] = known.get("policies", {})
        self.attached: dict[str, list[str]] = known.get("attached", {})
        self.aliases: dict[str, str] = known.get("aliases", {})
        self.objects: list[str] = known.get("objects", [])
        self.accounts: list[str] = known.get("accounts", [])
        self.root = json.loads((folder / "root.json").read_text())

    def save(self) -> None:
        """Keep what is known."""
        names = ("users", "policies", "attached", "aliases", "objects", "accounts")
        text = json.dumps({name: getattr(self, name) for name in names})
        (self._folder / "state.json").write_text(text)

    def may(self, alias: str, action: str, key: str) -> bool:
        """Whether the user of an alias may do something to an object."""
        user = self.aliases[alias]
        if user == self.root[0]:
            return True
        return any(allows(self.policies[name], action, key) for name in self.attached.get(user, []))

    def denies(self, alias: str, action: str) -> bool:
        """Whether a policy of the user denies an action that everybody has for himself."""
        names = self.attached.get(self.aliases[alias], [])
        statements = [item for name in names for item in self.policies[name]["Statement"]]
        return any(item["Effect"] == "Deny" and action in item["Action"] for item in statements)


def run(server: Server, words: list[str], read: Any) -> int:
    """Do what `mc` with these words does; return its exit code."""
    match words:
        case ["alias", "set", name, _url]:
            user, secret = read().splitlines()
            known = {**server.users, server.root[0]: server.root[1]}
            if known.get(user) != secret:
                return 1
            server.aliases[name] = user
        case ["admin", "user", "add", "store"]:
            user, secret = read().splitlines()
            if len(secret) < 8:
                return 1
            server.users[user] = secret
        case ["admin", "policy", "create", "store", name, file]:
            server.policies[name] = json.loads(Path(file).read_text())
        case ["admin", "policy", "attach", "store", name, "--user", user]:
            names = server.attached.setdefault(user, [])
            if name in names:
                return 1
            names.append(name)
        case ["admin", "user", "svcacct", "add", alias, _user]:
            if server.denies(alias, "admin:CreateServiceAccount"):
                return 1
            server.accounts.append(alias)
        case ["pipe", target]:
            alias, _, key = target.partition(f"/{BUCKET}/")
            if not server.may(alias, "s3:PutObject", key):
                return 1
            server.objects.append(key)
        case ["cat", target]:
            alias, _, key = target.partition(f"/{BUCKET}/")
            return 0 if server.may(alias, "s3:GetObject", key) and key in server.objects else 1
        case ["rm", "--recursive", "--force", "--versions", target]:
            prefix = target.partition(f"/{BUCKET}/")[2]
            server.objects = [key for key in server.objects if not key.startswith(prefix)]
        case ["ilm", "rule", "import", _target]:
            (Path(os.environ["MC_STATE"]) / "imported").write_text(read())
        case ["mb", *_] | ["version", "enable", *_]:
            pass
        case _:
            raise SystemExit(f"mc: {words} is no command that is known here")
    return 0


if __name__ == "__main__":
    state = Path(os.environ["MC_STATE"])
    with (state / "calls").open("a") as calls:
        calls.write(" ".join(sys.argv[1:]) + "\n")
    made = Server(state)
    code = run(made, sys.argv[1:], sys.stdin.read)
    made.save()
    sys.exit(code)
