"""Tables and graphs of the documentation, generated from the code that they describe.

`python -m pipelines.documents` fills them in between the marks `<!-- generated: NAME -->` and
`<!-- end: NAME -->` of docs/**/*.md, leaves the prose around them alone, and writes the README.md
of every phase. A test compares the committed pages with what it would write.
"""

import contextlib
import functools
import importlib
import inspect
import io
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest import mock

from google.protobuf import json_format

from components.configure.config import RunForm
from components.configure.phases import PHASES
from components.shared.contracts import errors
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.environment import Variable
from pipelines.catalog import pipeline_of
from pipelines.cli import app
from pipelines.graph import mermaid
from pipelines.parameters import STANDALONE, Variant
from pipelines.phase_pages import options_table, phase_pages
from pipelines.resources import LOCAL
from pipelines.sources import ROOT

DOCS = ROOT / "docs"
# Everything that can be compiled in, for the graph.
FULL = Variant("unlabelled", ("full", "lora"))
_MARKED = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end: (?P=name) -->)",
    re.DOTALL,
)
_WIDTH = "100"  # columns of the help texts


def main() -> None:
    """Fill in the generated parts of all pages; write the README.md of every phase."""
    for page in pages():
        page.write_text(filled(page), encoding="utf-8")
    for page, text in phase_pages().items():
        page.write_text(text, encoding="utf-8")


def pages() -> list[Path]:
    """Return the pages with generated parts."""
    return [page for page in sorted(DOCS.rglob("*.md")) if _MARKED.search(page.read_text("utf-8"))]


def filled(page: Path) -> str:
    """Return the page with its generated parts as the code has them now."""

    def part(found: re.Match[str]) -> str:
        return f"{found['begin']}\n{PARTS[found['name']]()}\n{found['end']}"

    return _MARKED.sub(part, page.read_text(encoding="utf-8"))


def graph() -> str:
    """Return the compiled graph with all optional phases, as Mermaid source."""
    return f"```mermaid\n{mermaid(spec_of(FULL))}```\n"


@functools.cache
def spec_of(variant: Variant) -> dict[str, Any]:
    """Return the compiled specification of a variant of the pipeline."""
    spec: dict[str, Any] = json_format.MessageToDict(pipeline_of(LOCAL, variant).pipeline_spec)
    return spec


def form() -> str:
    """Return the fields of the run form, in the order in which KFP shows them."""
    fields = sorted(RunForm.__dataclass_fields__.values(), key=lambda field: field.name)
    return _table(
        ("field", "meaning"), [(f"`{field.name}`", field.metadata["help"]) for field in fields]
    )


def parameters() -> str:
    """Return a table of options for each phase, in the pipeline's order."""
    return "\n".join(f"## `{phase}`\n\n{options_table(phase)}\n" for phase in PHASES | STANDALONE)


def artifacts() -> str:
    """Return the table of artifact kinds: content, split, phases that write them, readers."""
    written = _artifact_writers()
    rows = []
    for kind in Kind:
        writers = ", ".join(f"`{phase}`" for phase in written.get(kind, []))
        readers = ", ".join(f"`{name}`" if name in PHASES else name for name in kind.readers)
        rows.append((f"`{kind}`", kind.content, kind.data_split or "", writers, readers))
    return _table(("kind", "content", "split", "written by", "read by"), rows)


def environment() -> str:
    """Return the table of environment variables."""
    rows = [(f"`{name}`", name.meaning, name.reader, name.default) for name in Variable]
    return _table(("variable", "meaning", "read by", "default"), rows)


def exceptions() -> str:
    """Return the table of errors that are raised on purpose, with their exit codes."""
    rows = [
        (f"`{name}`", str(kind.exit_code), _summary(kind))
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.StreetVisionError)
    ]
    return _table(("class", "exit code", "meaning"), rows)


def command_line() -> str:
    """Return the help text of the command line and of every verb."""
    sections = [f"```text\n{help_text([])}```\n"]
    sections += [f"## {' '.join(verb)}\n\n```text\n{help_text(verb)}```\n" for verb in app.verbs()]
    return "\n".join(sections)


PARTS: dict[str, Callable[[], str]] = {
    "graph": graph,
    "form": form,
    "parameters": parameters,
    "artifacts": artifacts,
    "environment": environment,
    "errors": exceptions,
    "cli": command_line,
}


def help_text(verb: list[str]) -> str:
    """Return what `--help` prints, without trailing blanks."""
    output = io.StringIO()
    with (
        mock.patch.dict(os.environ, {"COLUMNS": _WIDTH, "TERM": "dumb", "NO_COLOR": "1"}),
        contextlib.redirect_stdout(output),
        contextlib.suppress(SystemExit),
    ):
        app.main([*verb, "--help"])

    lines = [line.rstrip() for line in output.getvalue().strip().splitlines()]

    return "\n".join(lines) + "\n"


def _artifact_writers() -> dict[str, list[str]]:
    """Return artifact kind -> phases that write it."""
    written: dict[str, list[str]] = {}
    for phase in PHASES | STANDALONE:
        component = getattr(importlib.import_module(f"components.{phase}.component"), phase)
        declared = component.component_spec.outputs or {}
        for title in {item.type.partition("@")[0] for item in declared.values()}:
            written.setdefault(title.removeprefix("system."), []).append(phase)
    return written


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; a bar or an angle bracket in a cell is escaped."""
    titles = list(head)
    lines = [" | ".join(titles), "|".join("---" for _ in titles)]
    lines += [" | ".join(re.sub(r"([|<])", r"\\\1", cell) for cell in row) for row in rows]
    return "".join(f"| {line} |\n" if line[:4] != "---|" else f"|{line}|\n" for line in lines)


def _summary(kind: type) -> str:
    """Return the first paragraph of a class's docstring on one line."""
    return " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())


if __name__ == "__main__":
    main()
