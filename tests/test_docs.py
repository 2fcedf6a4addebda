"""Documents say what the code says: pages, pictures and tables are compared with their source."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from components.configure.phases import PHASES
from components.configure.recipes import NAMES
from components.configure.resolve import _RENAMED as RENAMED
from pipelines import documents
from pipelines.documents import FULL, spec_of
from pipelines.graph import critical_path, mermaid, nodes
from pipelines.parameters import STANDALONE, Variant
from pipelines.sources import ROOT
from tests.pictures import GRAPHS, IMAGES

README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
CONFIGURE = (ROOT / "docs/guides/configure-a-run.md").read_text(encoding="utf-8")
# Documents outside the site, whose links MkDocs does not see.
OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "manifests/README.md")


@pytest.mark.parametrize("page", documents.pages(), ids=lambda page: page.stem)
def test_generated_parts_are_what_the_code_generates(page: Path) -> None:
    committed = page.read_text(encoding="utf-8")
    assert committed == documents.filled(page), "run `python -m pipelines.documents`"


def test_every_generated_part_is_on_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in documents.pages())
    assert all(f"<!-- generated: {name} -->" in text for name in documents.PARTS)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_pictures_of_the_graphs_show_the_compiled_tasks_and_edges(name: str) -> None:
    svg = (IMAGES / f"{name}.svg").read_text(encoding="utf-8")
    source = mermaid(spec_of(GRAPHS[name]))

    arrows = {f"{start} {end}" for start, end in re.findall(r"(\S+) --> (\S+)", source)}
    drawn = {" ".join(ids) for ids in re.findall(r'"L_([\w-]+?)_([\w-]+?)_\d+"', svg)}
    assert drawn == arrows, "draw it again: `python -m tests.pictures --help`"
    tasks = {node.name for node in nodes(spec_of(GRAPHS[name]))}
    assert tasks <= set(re.findall(r">([a-z-]+)</", svg))


def test_the_number_of_pods_is_the_default_graphs() -> None:
    path = critical_path(spec_of(Variant()))
    assert f"has {path.pods} pods one after the other" in " ".join(ARCHITECTURE.split())
    pods = f"({len(path.names)} steps of two pods, {path.driver_only} that only open a group)"
    assert pods in ARCHITECTURE


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_documented(name: str) -> None:
    assert f"| `{name}` |" in CONFIGURE


def test_the_readme_names_every_phase_in_the_order_of_the_graph() -> None:
    named = re.findall(r"^\| \[`(\w+)`\]", README, re.MULTILINE)
    assert sorted(named) == sorted(["configure", *PHASES, *STANDALONE])

    order = {phase: number for number, phase in enumerate(named)}
    phase_of = {
        node.name: re.sub(r"^train-(full|lora)$", "train-baseline", node.name)
        for node in nodes(spec_of(FULL))
    }
    for node in nodes(spec_of(FULL)):
        for upstream in node.after:
            before = phase_of[upstream].replace("-", "_")
            after = phase_of[node.name].replace("-", "_")
            if before in order and after in order and before != after:
                assert order[before] < order[after], (before, after)


def test_every_import_rule_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rules = [contract["name"] for contract in project["tool"]["importlinter"]["contracts"]]
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (.+?) \|", contributing.split("\n## ")[1], re.MULTILINE)[1:] == rules


def test_the_changelog_lists_every_renamed_option() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert all(f"| `{old}` | `{new}` |" in changelog for old, new in RENAMED.items())


def test_the_readme_is_short_and_its_pictures_are_small() -> None:
    assert len(README.splitlines()) <= 120
    for picture in re.findall(r'(?:\]\(|src=")(docs/images/[\w.-]+)', README):
        assert (ROOT / picture).stat().st_size < 250_000


def test_the_page_of_artifacts_names_every_file_of_the_golden_artifacts() -> None:
    page = (ROOT / "docs/reference/artifacts.md").read_text() + (
        ROOT / "docs/guides/serving.md"
    ).read_text()
    for manifest in sorted((ROOT / "tests/golden").glob("schema*/*/manifest.json")):
        document = json.loads(manifest.read_text(encoding="utf-8"))
        row = next(line for line in page.splitlines() if f"`{document['kind']}`" in line)
        assert row
        for name in document["files"]:
            first = name.partition("/")[0]
            assert f"`{first}`" in page or f"`{first}/`" in page, (document["kind"], name)


@pytest.mark.parametrize("document", OUTSIDE)
def test_links_outside_the_site_lead_to_files(document: str) -> None:
    file = ROOT / document
    text = file.read_text(encoding="utf-8")
    links = re.findall(r'\]\(([^)#\s]+)|(?:href|src)="([^"#]+)"', text)
    for link in {first or second for first, second in links}:
        assert link.startswith("https://") or (file.parent / link).exists(), link


@pytest.mark.parametrize(
    "message",
    [
        "hangs in step",
        "restart 1 of",
        "micro-batch halved to",
        "training goes on unprotected",
        "require_durable=true stops training here",
        "damaged checkpoint skipped",
        "has taken this training over; this attempt stops",
        "out of memory, the container reached its limit",
        "equivalent, not identical",
        "resumed at step",
    ],
)
def test_quoted_messages_are_those_of_the_code(message: str) -> None:
    assert message in (ROOT / "docs/failures.md").read_text(encoding="utf-8")
    code = message.replace("in step", "").replace("restart 1 of", "restart {").strip()
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "components").rglob("*.py")]
    assert any(code in source for source in sources)


def test_the_site_builds_without_a_broken_link_and_loads_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    built = subprocess.run(
        [*command, "--site-dir", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        loaded = re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text()
        )
        assert not loaded, page


def test_a_broken_link_fails(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("[nowhere](nowhere.md)")
    configuration = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[0]
    (tmp_path / "mkdocs.yml").write_text(configuration)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 1
