"""Nights of the recurring pipeline on this machine, with a store and a registry.

docs/guides/continuous.md has the table of what ran on which night.
"""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.shared.storage.registry import open_registry
from pipelines.cli import app as cli
from pipelines.local.store import local_store
from pipelines.sources import ROOT
from tests.components.conftest import write_backbone, write_source

N_FIRST, N_NEW = 400, 200
PROMOTE = "promote-bundle"


@dataclass(frozen=True)
class Night:
    """One run: what it printed, its steps that ran beside `configure`, its time, the registry."""

    printed: str
    ran: tuple[str, ...]
    seconds: float
    champion: str
    n_decisions: int
    n_comparisons: int


class Site:
    """A folder of runs that one pipeline fills night after night."""

    def __init__(self, root: Path, capture: Any) -> None:
        self.root, self.capture = root, capture
        write_source(root / "all", N_FIRST + N_NEW)
        write_backbone(root / "backbone")
        self.show(N_FIRST)
        values = {
            "data": str(root / "data"),
            "backbone": str(root / "backbone"),
            "image_size": 56,
            "epochs": 2,
            "learning_rate": 0.002,
            "min_per_class": 2,
            "n_bootstrap": 200,
            "n_processes": 1,
        }
        (root / "run.yaml").write_text(yaml.safe_dump(values))

    def show(self, n_images: int) -> None:
        """Let the source hold the first images of all."""
        folder = self.root / "data"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "img").mkdir(parents=True)
        head, *rows = (self.root / "all/labels.csv").read_text().splitlines()
        shown = rows[:n_images]
        (folder / "labels.csv").write_text("\n".join([head, *shown]) + "\n")
        for row in shown:
            name = row.partition(",")[0]
            shutil.copy2(self.root / "all" / name, folder / name)

    def night(self) -> Night:
        """Run the pipeline, and look at the registry afterwards."""
        given = ["run", "--pipeline", "continuous", "--store", "embedded"]
        given += ["--params", str(self.root / "run.yaml"), "--output", str(self.root / "runs")]
        before = self._ran()
        begun = time.monotonic()
        cli.main(given)
        seconds = time.monotonic() - begun
        printed = self.capture.readouterr().out
        with local_store(self.root / "runs/store"):
            registry = open_registry()
            champion = registry.champion()
            assert champion is not None
            decisions = list(registry.decisions())
            lineages = {decision.lineage for decision in decisions if decision.lineage}
            n_comparisons = sum(len(registry.comparisons(name)) for name in lineages)
        ran = tuple(sorted(self._ran() - before - {"configure"}))
        return Night(
            printed,
            tuple(name.rpartition("/")[2] for name in ran if not name.endswith("/configure")),
            seconds,
            champion.digest,
            len(decisions),
            n_comparisons,
        )

    def promote_by_hand(self, digest: str) -> None:
        """Go back to a former champion, as a person does."""
        with local_store(self.root / "runs/store"):
            cli.main(["rollback", digest[:16], "--because", "a test of what runs afterwards"])

    def _ran(self) -> set[str]:
        """Return run and step of every step that has run."""
        files = (self.root / "runs").glob("streetvision-continuous-*/*/status.json")
        return {"/".join(file.parts[-3:-1]) for file in files}


@pytest.mark.slow
def test_the_nights_of_the_recurring_pipeline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path, capsys)
    rows: list[tuple[str, Night]] = []

    def night(what: str) -> Night:
        rows.append((what, site.night()))
        return rows[-1][1]

    first = night("the first one")
    assert "promotion: promoted, " in first.printed
    assert {"ingest-dataset", "train-baseline", "export-bundle", PROMOTE} <= set(first.ran)
    assert (first.n_decisions, first.n_comparisons) == (1, 0)

    after = night("the one after a promotion, nothing new")
    assert after.ran == (PROMOTE,)
    assert "promotion: unchanged, the bundle is the champion already" in after.printed
    assert (after.n_decisions, after.n_comparisons) == (1, 0)

    quiet = night("nothing new")
    assert quiet.ran == ()
    assert (quiet.champion, quiet.n_decisions) == (first.champion, 1)
    assert quiet.seconds < first.seconds / 2

    site.show(N_FIRST + N_NEW)
    grown = night(f"{N_NEW} new images")
    assert set(grown.ran) == set(first.ran) - {"import-backbone"}
    assert (grown.n_decisions, grown.n_comparisons) == (2, 1)
    assert "promotion: promoted, " in grown.printed or "promotion: refused, " in grown.printed

    for what, found in rows:
        print(
            json.dumps([what, found.ran, round(found.seconds, 1), found.printed.splitlines()[-1]])
        )
    table = "\n".join(f"| {what} | {', '.join(found.ran) or 'nothing'} |" for what, found in rows)
    assert table in (ROOT / "docs/guides/continuous.md").read_text(), table
