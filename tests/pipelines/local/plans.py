"""Plans of runs after each of several changes of the code.

A program of its own, since it imports changed code.

Usage: python plans.py OUTPUT < changes.json, started with the changeable tree on PYTHONPATH. A
change is {"file": path or "", "data": folder, "params": file, "changed": options, "graph": given}:
the file gets one more line for the length of one plan; `parse_variant` gets what is given.
"""

import importlib
import json
import sys
from pathlib import Path


def main() -> None:
    """Print a JSON list: for each change the steps that would run."""
    output = Path(sys.argv[1])
    from pipelines.local.store import local_store

    results = []
    with local_store(output / "store") as store:
        for change in json.load(sys.stdin):
            file = Path(change["file"]) if change["file"] else None
            before = file.read_bytes() if file else b""
            if file:
                file.write_bytes(before + b"\n# changed\n")
            data = store.mirror(change["data"])
            for name in [
                name for name in sys.modules if name.split(".")[0] in ("pipelines", "components")
            ]:
                del sys.modules[name]
            parameters = importlib.import_module("pipelines.parameters")
            variant = parameters.parse_variant("none", **change["graph"])
            pairs = [f"{name}={value}" for name, value in change["changed"].items()]
            values = parameters.read_parameters(
                Path(change["params"]), [*pairs, f"data={data}"], variant
            )
            rows = importlib.import_module("pipelines.local.plan").plan(values, output, variant)
            results.append([row.step for row in rows if row.state != "cached"])
            if file:
                file.write_bytes(before)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
