"""`python -m tests.bench [NAME...]`: all or some benchmarks, as ratios against their peers."""

import argparse
import importlib
import json
from dataclasses import asdict
from pathlib import Path

from tests.bench.measure import Result
from tests.bench.versions import described


def main() -> None:
    """Run the benchmarks, print a table, and with --json write the results."""
    names = sorted(
        file.stem.removeprefix("bench_") for file in Path(__file__).parent.glob("bench_*.py")
    )
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    parsed = parser.parse_args()
    unknown = sorted(set(parsed.names) - set(names))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(names)}")
    print(described(), flush=True)
    results: list[Result] = []
    for name in parsed.names or names:
        for result in importlib.import_module(f"tests.bench.bench_{name}").run():
            print(_line(result), flush=True)
            results.append(result)
    if parsed.json:
        parsed.json.write_text(
            json.dumps([asdict(r) | {"ratio": r.ratio} for r in results], indent=1) + "\n"
        )


def _line(result: Result) -> str:
    verdict = "reached" if result.ratio >= result.goal else "MISSED"
    seconds = (
        f"{result.ours_seconds * 1e3:.1f} ms against {result.peer_seconds * 1e3:.1f} ms"
        f" ({result.peer})"
    )
    note = f"; {result.note}" if result.note else ""
    return f"{result.name}: {result.ratio:.2f}x, goal {result.goal:g}x {verdict}; {seconds}{note}"


if __name__ == "__main__":
    main()
