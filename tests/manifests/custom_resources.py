"""What the API of a custom resource accepts: its published schema, as an API server uses it.

Each schema is a file beside this one, named by project, release and kind, that says where it is
from and what was cut away: a field that is not in it is refused here, also where the project knows
it. Rules in CEL (x-kubernetes-validations) are not evaluated.
"""

import json
from pathlib import Path
from typing import Any

import jsonschema


def problems(name: str, item: dict[str, Any]) -> list[str]:
    """Return what an API server would say of an object; unknown fields are problems.

    Args:
        name: Of the file of the schema, without its ending.
        item: The object.
    """
    file = Path(__file__).with_name(f"{name}.json")
    schema = _closed(json.loads(file.read_text(encoding="utf-8"))["schema"])
    found = jsonschema.Draft202012Validator(schema).iter_errors(item)
    return [f"{error.json_path}: {error.message}" for error in found]


def _closed(schema: Any) -> Any:
    """Return a structural schema of Kubernetes as a strict JSON schema."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema

    closed = {
        key: {name: _closed(part) for name, part in value.items()}
        if key == "properties"
        else _closed(value)
        for key, value in schema.items()
    }
    if closed.pop("x-kubernetes-int-or-string", False):
        closed["type"] = ["integer", "string"]
    if "properties" in closed and not closed.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed
