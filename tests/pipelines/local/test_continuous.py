"""Nights of the recurring pipeline on this machine, with a store and a registry.

docs/guides/continuous.md has the table of what ran on which night. `python -m pytest -s -m slow` of
this file prints seconds and decision of each night, and the registry's history after a rollback.
"""

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
    challenger: str
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
            next(line for line in printed.splitlines() if "digest: " in line).split()[-1],
            champion.digest,
            len(decisions),
            n_comparisons,
        )

    def by_hand(self, *verb: str) -> None:
        """Change the champion as a person does, and forget what the verb printed."""
        cli.main([*verb, "--runs", str(self.root / "runs"), "--because", "a test of the nights"])
        self.capture.readouterr()

    def show_history(self) -> None:
        """Print the registry's history, as the verb prints it."""
        cli.main(["champion", "--runs", str(self.root / "runs")])

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
    assert {"import-backbone", "train-baseline", "export-bundle", PROMOTE} <= set(first.ran)
    assert (first.n_decisions, first.n_comparisons) == (1, 0)

    after = night("the one after a promotion, nothing new")
    assert after.ran == (PROMOTE,)
    assert "promotion: unchanged, the bundle is the champion already" in after.printed
    assert (after.n_decisions, after.n_comparisons) == (1, 0)

    quiet = night("nothing new")
    assert quiet.ran == ()
    assert "promotion: of an earlier run, from the cache: unchanged, " in quiet.printed
    assert (quiet.champion, quiet.n_decisions) == (first.champion, 1)
    assert quiet.seconds < first.seconds / 2

    site.show(N_FIRST + N_NEW)
    grown = night(f"{N_NEW} new images")
    assert set(grown.ran) == set(first.ran) - {"import-backbone"}
    assert "promotion: refused, " in grown.printed, "a gain that no test can see is none"
    assert (grown.champion, grown.n_decisions, grown.n_comparisons) == (first.champion, 2, 1)

    site.by_hand("promote", grown.challenger, "--force")
    forced = night("a new champion, set by hand")
    assert forced.ran == (PROMOTE,)
    assert (forced.champion, forced.n_comparisons) == (grown.challenger, 1)

    site.by_hand("rollback")
    back = night("after a rollback to the former champion")
    assert back.ran == ()
    assert "promotion: of an earlier run, from the cache: refused, " in back.printed
    assert (back.champion, back.n_comparisons) == (first.champion, 1)

    for what, found in rows:
        promoted = next(line for line in found.printed.splitlines() if "promotion: " in line)
        print(f"{what}: {found.seconds:.0f} s, {promoted}")
    site.show_history()
    table = "\n".join(f"| {what} | {_named(found.ran, first.ran)} |" for what, found in rows)
    assert table in (ROOT / "docs/guides/continuous.md").read_text(), table


def _named(ran: tuple[str, ...], all_steps: tuple[str, ...]) -> str:
    """Name the steps that ran, those of a whole run by those that did not."""
    if len(ran) < len(all_steps) / 2:
        return ", ".join(f"`{name}`" for name in ran) or "nothing"
    left = sorted(set(all_steps) - set(ran))
    return "everything" + (f" but `{left[0]}`" if len(left) == 1 else "")
