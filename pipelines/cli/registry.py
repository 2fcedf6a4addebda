"""Verbs for the champion and the registry of bundles: `champion`, `rollback`, `registry ...`."""

import getpass
import json as json_
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.shared.contracts.errors import ConfigError, PermanentError
from components.shared.contracts.listing import printable, warn
from pipelines.cli.declare import CHAMPION, verb
from pipelines.cli.help import VerbGroup
from pipelines.cli.registry_options import (
    AnnounceOptions,
    Json,
    RegistryOptions,
    TrustedKeys,
    opened,
)
from pipelines.kubeflow.options import ApiAddress, StoreOptions
from pipelines.sources import commit

if TYPE_CHECKING:
    from components.shared.storage.registry import BundleRegistry, Decision
    from components.shared.storage.registry.announcement import Announcement
    from components.shared.storage.registry.inventory import Entry

app = typer.Typer()
registry = typer.Typer(
    cls=VerbGroup,
    help="List, show, download or clean up the bundles of the registry.",
    subcommand_metavar="ACTION [ARGS]...",
)
app.add_typer(registry, name="registry", rich_help_panel=CHAMPION)

_DIGITS = "A digest is named by its first 6 or more hex digits."
_CHAMPION_NOTES = """
examples:
  python -m pipelines champion --runs runs
  python -m pipelines champion --bundle-registry s3://streetvision/registry --json
"""
_ROLLBACK_NOTES = f"""
examples:
  python -m pipelines rollback --because 'wrong on wet roads'
  python -m pipelines rollback 3f2a9c1b7d4e --because 'the last one before the new camera'
  python -m pipelines rollback --because 'wrong on wet roads' --trusted-keys ours.pem

The former champion's bundle is still in the registry. Its files are compared with their digests,
and the signature with the trusted keys, where they are named. The decision is recorded as every
other one.
{_DIGITS}
"""
_LIST_NOTES = """
example:
  python -m pipelines registry list --runs runs
"""
_SHOW_NOTES = f"""
example:
  python -m pipelines registry show 3f2a9c1b7d4e

{_DIGITS}
"""
_DOWNLOAD_NOTES = f"""
examples:
  python -m pipelines registry download --output champion
  python -m pipelines registry download 3f2a9c1b7d4e --output former
  python -m pipelines registry download --output champion --trusted-keys ours.pem

Every file is compared with its digest, and the signature with the trusted keys, where they are
named. {_DIGITS}
"""
_GC_NOTES = f"""
examples:
  python -m pipelines registry gc --dry-run
  python -m pipelines registry gc
  python -m pipelines registry gc --keep 3f2a9c1b7d4e

Removed are bundles that were refused, or lost against another promotion. Kept are the champion, all
former champions, bundles without a decision, and every record. Name with --keep what a server
serves by its digest, such as the challenger of a canary: which ones do is not recorded. {_DIGITS}
"""

Bundle = Annotated[str, typer.Argument(metavar="BUNDLE", help="Digest of the bundle.")]


@verb(app, "champion", CHAMPION, notes=_CHAMPION_NOTES)
def champion(
    where: RegistryOptions,
    api: ApiAddress,
    store: StoreOptions,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=0, help="Decisions of the history to show.")
    ] = 10,
    json: Json = False,
) -> None:
    """Show the champion, and the decisions that led to it."""
    from pipelines.cli.registry_text import champion_document, champion_lines

    with opened(where, api, store) as found:
        if json:
            print_json(champion_document(found, limit))
        else:
            print_lines(champion_lines(found, limit))


@verb(app, "rollback", CHAMPION, notes=_ROLLBACK_NOTES)
def rollback(
    where: RegistryOptions,
    api: ApiAddress,
    store: StoreOptions,
    announce: AnnounceOptions,
    version: Annotated[
        str | None,
        typer.Argument(
            metavar="VERSION",
            help="Digest of a former champion.",
            show_default="the one before the present champion",
        ),
    ] = None,
    because: Annotated[
        str, typer.Option("--because", metavar="TEXT", help="Why; it is recorded.")
    ] = "",
    trusted_keys: TrustedKeys = "",
    json: Json = False,
) -> None:
    """Make a former champion the champion again."""
    from components.shared.contracts.artifacts import code_version
    from components.shared.storage.registry import Draft

    announcement = announce.checked()
    with opened(where, api, store) as found:
        over = found.champion()
        if over is None:
            raise ConfigError(f"{found.uri} has no champion; there is nothing to go back from")

        target = _former(found, version)
        if target == over.digest:
            raise ConfigError(f"{target[:12]} is the champion; name an earlier one, see: champion")
        warning = _signature_warning(found, target, trusted_keys)

        draft = Draft(
            kind="rollback",
            promoted=True,
            challenger=target,
            reason=f"back from {over.digest[:12]}",
            because=because,
            run="rollback",
            git_commit=commit(),
            code_version=code_version(),
            by=login(),
        )
        finish(found, found.decide(draft, over), announcement, as_json=json)
    if warning:
        warn(warning)


@verb(registry, "list", notes=_LIST_NOTES)
def list_(where: RegistryOptions, api: ApiAddress, store: StoreOptions, json: Json = False) -> None:
    """List the bundles with what was decided on them."""
    from components.shared.storage.registry.inventory import inventory
    from pipelines.cli.registry_text import entry_document, entry_lines

    with opened(where, api, store) as found:
        entries = inventory(found)
        if json:
            print_json([entry_document(found, entry) for entry in entries])
        elif entries:
            print_lines(entry_lines(found, entries))
        else:
            print(f"{found.uri} has no bundle")


@verb(registry, "show", notes=_SHOW_NOTES)
def show(
    bundle: Bundle,
    where: RegistryOptions,
    api: ApiAddress,
    store: StoreOptions,
    json: Json = False,
) -> None:
    """Show a bundle, where it comes from, and every decision that names it."""
    from components.shared.storage.registry.inventory import inventory
    from pipelines.cli.registry_text import bundle_document, bundle_lines

    with opened(where, api, store) as found:
        digest = found.resolve(bundle)
        (entry,) = (entry for entry in inventory(found) if entry.digest == digest)
        if json:
            print_json(bundle_document(found, entry))
        else:
            print_lines(bundle_lines(found, entry))


@verb(registry, "download", notes=_DOWNLOAD_NOTES)
def download(
    where: RegistryOptions,
    api: ApiAddress,
    store: StoreOptions,
    bundle: Annotated[
        str | None,
        typer.Argument(metavar="BUNDLE", help="Digest of the bundle.", show_default="the champion"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FOLDER",
            help="New folder to write to.",
            show_default="bundle-DIGEST",
        ),
    ] = None,
    trusted_keys: TrustedKeys = "",
    json: Json = False,
) -> None:
    """Copy a bundle from the registry and verify it."""
    from components.shared.serving.signature import check_signature, unchecked_warning

    with opened(where, api, store) as found:
        digest = _champion_of(found) if bundle is None else found.resolve(bundle)
        folder = output or Path(f"bundle-{digest[:12]}")
        if folder.exists():
            raise ConfigError(f"{folder} exists; give --output a folder that does not")

        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        found.get_bundle(digest, folder)

    try:
        signer = check_signature(folder, trusted_keys)
    except PermanentError:
        shutil.rmtree(folder)
        raise
    if not signer:
        warn(unchecked_warning(folder))

    if json:
        signed = {"signer": signer} if signer else {}
        print_json({"digest": digest, "path": str(folder)} | signed)
    else:
        print(f"bundle: {folder}")
        print(f"digest: {digest}")
        if signer:
            print(printable(f"signer: {signer}"))


@verb(registry, "gc", notes=_GC_NOTES)
def gc(
    where: RegistryOptions,
    api: ApiAddress,
    store: StoreOptions,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed and remove nothing.")
    ] = False,
    undecided: Annotated[
        bool,
        typer.Option(
            "--undecided",
            help="Remove bundles without a decision and unfinished uploads too; only while no run"
            " is at work.",
        ),
    ] = False,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="DIGEST",
            help="Bundle to keep whatever was decided on it. May be repeated.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Remove bundles that nothing can go back to; records are kept."""
    from components.shared.storage.registry.inventory import collect, inventory, removable
    from pipelines.cli.registry_text import entry_document, entry_lines

    with opened(where, api, store) as found:
        kept = {found.resolve(digest) for digest in keep or ()}
        entries = removable(inventory(found), undecided=undecided, keep=kept)
        described = [entry_document(found, entry) for entry in entries]
        lines = list(entry_lines(found, entries))
        if not dry_run:
            gone = {entry.digest for entry in collect(found, undecided=undecided, keep=kept)}
            left = [
                number for number, entry in enumerate(entries) if entry.digest not in gone
            ]  # promoted meanwhile
            for number in reversed(left):
                del described[number], lines[number], entries[number]

    if json:
        print_json({"dry_run": dry_run, "removed": described})
    else:
        print_lines(lines)
        print(_summary(entries, dry_run=dry_run))


def finish(
    found: "BundleRegistry", decision: "Decision", announcement: "Announcement", *, as_json: bool
) -> None:
    """Announce a promotion that took effect, and print the decision; failures are warnings."""
    from pipelines.cli.registry_text import decision_lines

    if decision.promoted:
        model = found.model(decision.challenger)[0] or "streetvision"
        for warning in announcement.send(decision, found, model):
            warn(warning)

    if as_json:
        print_json(asdict(decision))
    else:
        print_lines(decision_lines(decision))


def login() -> str:
    """Return the name of who types the command; empty where the system has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _former(found: "BundleRegistry", version: str | None) -> str:
    """Return the digest to go back to. Raises ConfigError where there is none."""
    if version is None:
        predecessors = found.predecessors()
        if not predecessors:
            raise ConfigError(f"{found.uri}: no champion was before the present one")
        return predecessors[0]

    digest = found.resolve(version)
    if digest not in {known for known, _ in found.champions()}:
        raise ConfigError(
            f"{digest[:12]} was never the champion; a rollback goes back only, see: champion"
        )
    return digest


def _signature_warning(found: "BundleRegistry", digest: str, trusted_keys: str) -> str:
    """Return what should be known of a bundle whose signature nobody has checked; else empty.

    The bundle is downloaded for it, and so verified.

    Raises:
        ArtifactError: The bundle is damaged, or nobody who is trusted has signed it.
    """
    from components.shared.serving.signature import check_signature, unchecked_warning

    with tempfile.TemporaryDirectory(prefix="streetvision-bundle-") as folder:
        path = Path(folder) / digest[:12]
        found.get_bundle(digest, path)
        signer = check_signature(path, trusted_keys)
        return "" if signer else unchecked_warning(path, digest[:12])


def _champion_of(found: "BundleRegistry") -> str:
    over = found.champion()
    if over is None:
        raise ConfigError(f"{found.uri} has no champion; name a bundle, see: registry list")
    return over.digest


def _summary(entries: list["Entry"], *, dry_run: bool) -> str:
    size = sum(entry.n_bytes for entry in entries) / 1e6
    done = "would be removed" if dry_run else "removed"
    return f"{len(entries)} bundles, {size:.1f} MB {done}"


def print_lines(lines: Iterable[str]) -> None:
    """Print lines."""
    for line in lines:
        print(line)


def print_json(document: Any) -> None:
    """Print a document on one line."""
    print(json_.dumps(document, sort_keys=True))
