"""What the registry's verbs print: bundles, decisions and the champion, as lines and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from components.shared.contracts.listing import printable

if TYPE_CHECKING:
    from components.shared.storage.registry import BundleRegistry, Decision
    from components.shared.storage.registry.inventory import Entry

SHORT = 12  # digits of a digest: as many as the verbs need to tell bundles apart, and more
_KINDS = {
    "first": "first champion",
    "comparison": "comparison",
    "by_hand": "by hand",
    "rollback": "rollback",
}


def decision_lines(decision: "Decision", *, took_effect: bool | None = None) -> Iterator[str]:
    """Yield a decision as two or three lines.

    Args:
        decision: the record.
        took_effect: whether the pointer moved by it; None where that is not known.
    """
    outcome = "promoted" if decision.promoted else "refused"
    if decision.promoted and took_effect is False:
        outcome = "not promoted, another promotion was first:"
    over = f" over {decision.champion[:SHORT]}" if decision.champion else ""
    kind = _KINDS[decision.kind]
    if decision.comparison is not None:
        kind += f" {decision.comparison} of lineage {decision.lineage}"

    yield printable(
        f"#{decision.number:<4} {when(decision.recorded_at)}  {outcome}"
        f" {decision.challenger[:SHORT]}{over}  ({kind})"
    )
    yield printable(f"      {decision.reason}")
    if decision.because:
        by = f"{decision.by}: " if decision.by else ""
        yield printable(f"      {by}{decision.because}")


def champion_lines(registry: "BundleRegistry", limit: int) -> Iterator[str]:
    """Yield the champion, what a rollback goes back to, and the newest decisions."""
    champions = registry.champions()
    if not champions:
        yield f"{registry.uri} has no champion yet"
    else:
        digest, decision = champions[0]
        yield printable(f"champion     {digest[:SHORT]}  {registry.label(digest)}".rstrip())
        if decision is not None:
            yield f"since        {when(decision.recorded_at)}, decision #{decision.number}"
        predecessors = registry.predecessors()
        if predecessors:
            yield f"rollback to  {predecessors[0][:SHORT]}"

    decisions = newest(registry, limit)
    if decisions:
        in_effect = {found.number for _, found in champions if found is not None}
        yield ""
        yield "history, the newest decision first"
        for decision in decisions:
            yield from decision_lines(decision, took_effect=decision.number in in_effect)


def champion_document(registry: "BundleRegistry", limit: int) -> dict[str, Any]:
    """Return what `champion --json` prints."""
    champion = registry.champion()
    return {
        "registry": registry.uri,
        "champion": None if champion is None else champion.digest,
        "model": "" if champion is None else registry.label(champion.digest),
        "decision": None if champion is None else champion.decision,
        "predecessors": registry.predecessors(),
        "history": [asdict(decision) for decision in newest(registry, limit)],
    }


def entry_lines(registry: "BundleRegistry", entries: Sequence["Entry"]) -> Iterator[str]:
    """Yield one line for each bundle."""
    for entry in entries:
        number = "" if entry.decision is None else f"#{entry.decision.number}"
        state = entry.state if entry.is_complete else f"{entry.state}, unfinished upload"
        size = f"{entry.n_bytes / 1e6:9.1f} MB"
        label = registry.label(entry.digest)
        yield printable(f"{entry.digest[:SHORT]}  {size}  {number:>5}  {state:27} {label}".rstrip())


def entry_document(registry: "BundleRegistry", entry: "Entry") -> dict[str, Any]:
    """Return a bundle as `registry list --json` has it."""
    return {
        "digest": entry.digest,
        "model": registry.label(entry.digest),
        "bytes": entry.n_bytes,
        "state": str(entry.state),
        "complete": entry.is_complete,
        "decision": None if entry.decision is None else entry.decision.number,
        "uri": registry.bundle_uri(entry.digest),
    }


def bundle_document(registry: "BundleRegistry", entry: "Entry") -> dict[str, Any]:
    """Return what `registry show --json` prints of a bundle."""
    provenance = registry.provenance(entry.digest)
    decisions = [
        asdict(decision)
        for decision in registry.decisions()
        if entry.digest in (decision.challenger, decision.champion)
    ]
    return {
        **entry_document(registry, entry),
        "provenance": None if provenance is None else asdict(provenance),
        "decisions": decisions,
    }


def bundle_lines(registry: "BundleRegistry", entry: "Entry") -> Iterator[str]:
    """Yield a bundle, where it comes from, and the decisions that name it."""
    yield printable(f"bundle    {entry.digest}")
    yield printable(f"model     {registry.label(entry.digest) or 'not described'}")
    yield f"state     {entry.state}, {entry.n_bytes / 1e6:.1f} MB"
    yield f"at        {registry.bundle_uri(entry.digest)}"

    provenance = registry.provenance(entry.digest)
    if provenance is None:
        yield "made by   not recorded"
    else:
        yield printable(f"made by   {provenance.run or 'a run that is not recorded'}")
        if provenance.git_commit:
            yield printable(f"commit    {provenance.git_commit}")
        if provenance.lineage is not None:
            lineage = provenance.lineage
            fractions = ", ".join(f"{name} {part:g}" for name, part in lineage.fractions.items())
            yield printable(f"lineage   {lineage.name}, salt {lineage.salt!r}, {fractions}")

    found = [
        decision
        for decision in registry.decisions()
        if entry.digest in (decision.challenger, decision.champion)
    ]
    if found:
        yield ""
        in_effect = {known.number for _, known in registry.champions() if known is not None}
        for decision in found:
            yield from decision_lines(decision, took_effect=decision.number in in_effect)


def newest(registry: "BundleRegistry", limit: int) -> list["Decision"]:
    """Return the newest decisions."""
    from itertools import islice

    return list(islice(registry.decisions(), limit))


def when(recorded: str) -> str:
    """Return a recorded time as a person reads it, in UTC."""
    return f"{datetime.fromisoformat(recorded):%Y-%m-%d %H:%M} UTC"
