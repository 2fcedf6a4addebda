"""Registry of bundles in the object store, with the pointer to the champion among them.

Layout below the prefix:

    bundles/<digest>/...             a bundle under its content digest; never changes once complete,
                                     but for its newest signature, with the manifest that it covers
    provenance/<digest>.json         where the bundle comes from
    tables/<SHA-256>.csv             samples, splits and groups that a run has seen
    lineages/<name>.json             salt and fractions of a lineage
    comparisons/<lineage>/000001.json, ...   claimed comparisons of a lineage, counted
    decisions/000001.json, ...       every decision, refusals too; kept for ever
    champion.json                    the one pointer, moved by compare-and-swap only

All but the pointer are created by conditional writes and never replaced. A decision is recorded
before the pointer moves: the pointer names the decision that moved it, and each decision the one
that it replaced, so that the chain from the pointer has exactly those that took effect.
"""

import hashlib
import re
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import MANIFEST, SIGNATURE, verify_dir
from components.shared.contracts.config import canonical_json
from components.shared.contracts.documents import as_type, parse_json
from components.shared.contracts.errors import ArtifactError, ConfigError
from components.shared.contracts.listing import first_of, shown
from components.shared.storage.artifacts import (
    download_artifact,
    upload_artifact,
    upload_manifest,
)
from components.shared.storage.client import MOST_DOCUMENT_BYTES, Store
from components.shared.storage.errors import ObjectNotFoundError, StoreConflictError
from components.shared.storage.registry.documents import (
    Champion,
    Comparison,
    Decision,
    Draft,
    Provenance,
    SplitLineage,
)
from components.shared.storage.registry.folder import Folder, free_numbers, numbered

POINTER = "champion.json"
_LINEAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PREFIX_OF_DIGEST = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True)
class _Pointer:
    """The document of champion.json."""

    digest: str
    previous: str | None
    decision: int | None = None
    n_collections: int = 0


@dataclass(frozen=True)
class _Claim:
    """The document of a comparison."""

    challenger: str
    champion: str
    question: str
    run: str
    git_commit: str
    n_decisions_before: int
    claimed_at: str
    code: str


@dataclass(frozen=True)
class StoredBundle:
    """A bundle in the registry; n_bytes: of all its objects."""

    digest: str
    n_bytes: int
    is_complete: bool


class BundleRegistry:
    """Bundles, decisions and the champion pointer in one bucket, below one prefix.

    Reading needs no permission to write. Before the first write the store is probed for conditional
    writes; StoreUnsuitableError where it ignores them.
    """

    def __init__(self, store: Store, bucket: str, prefix: str = "") -> None:
        prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.root = Folder(store, bucket, prefix)
        self._is_probed = False

    @property
    def uri(self) -> str:
        """The registry's address, s3://bucket/prefix."""
        return self.root.where("").rstrip("/")

    def bundle_uri(self, digest: str) -> str:
        """Return the address of a bundle."""
        return self.root.where(f"bundles/{digest}")

    def require_conditional_writes(self) -> None:
        """Raise StoreUnsuitableError where the store ignores conditions on writes."""
        if not self._is_probed:
            self.root.store.require_conditional_writes(self.root.bucket, self.root.prefix)
            self._is_probed = True

    # Bundles.

    def put_bundle(self, path: Path, provenance: Provenance | None = None) -> str:
        """Upload a bundle under its content digest, unless it is there, and return the digest.

        A signature replaces the one that is there: the bundle was signed since, or by another key.
        A bundle without one leaves that of the registry.

        Args:
            path: the bundle's folder.
            provenance: where it comes from. Of two runs that make the same bytes the first one's is
                kept.
        """
        self.require_conditional_writes()
        digest = verify_dir(path, Kind.BUNDLE).content_digest
        if provenance is not None:
            dated = replace(provenance, registered_at=_now())
            self.root.create(f"provenance/{digest}.json", asdict(dated))

        root, location = self.root, f"{self.root.prefix}bundles/{digest}"
        if not self.holds(digest):
            upload_artifact(root.store, path, root.bucket, location, kind=Kind.BUNDLE)
        elif (path / SIGNATURE).is_file():
            upload_manifest(root.store, path, root.bucket, location, kind=Kind.BUNDLE)
        return digest

    def get_bundle(self, digest: str, path: Path) -> None:
        """Download a bundle.

        Raises ObjectNotFoundError, or ArtifactError where its content digest is not `digest`.
        """
        root = self.root
        location = f"{root.prefix}bundles/{digest}"
        manifest = download_artifact(root.store, root.bucket, location, path, kind=Kind.BUNDLE)
        if manifest.content_digest != digest:
            raise ArtifactError(
                f"bundle {digest[:12]}... in the registry holds {manifest.content_digest[:12]}..."
            )

    def holds(self, digest: str) -> bool:
        """Return whether the registry has the whole bundle."""
        name = f"bundles/{digest}/{MANIFEST}"
        return any(entry.key == self.root.prefix + name for entry in self.root.objects(name))

    def provenance(self, digest: str) -> Provenance | None:
        """Return where a bundle comes from, or None where that was not recorded."""
        return self.root.read_if_any(f"provenance/{digest}.json", Provenance)

    def model(self, digest: str) -> tuple[str, str]:
        """Return name and version of the model in a bundle; empty where it does not name one."""
        name = f"bundles/{digest}/bundle.json"
        try:
            data = self.root.store.read(
                self.root.bucket, self.root.prefix + name, most_bytes=MOST_DOCUMENT_BYTES
            )
        except ObjectNotFoundError:
            return "", ""
        document = as_type(parse_json(data, self.root.where(name)), dict, self.root.where(name))
        return str(document.get("name", "")), str(document.get("version", ""))

    def label(self, digest: str) -> str:
        """Return name and version of the model in a bundle as one text."""
        return " ".join(self.model(digest)).strip()

    def resolve(self, text: str) -> str:
        """Return the digest of the bundle that starts with `text`, at least six hex digits.

        Raises:
            ConfigError: no bundle, or several ones, or no digest.
        """
        if not _PREFIX_OF_DIGEST.fullmatch(text):
            raise ConfigError(f"{shown(text)} must be the first 6 to 64 hex digits of a digest")

        found = [
            bundle.digest
            for bundle in self.bundles()
            if bundle.is_complete and bundle.digest.startswith(text)
        ]
        if len(found) != 1:
            several = f"several: {first_of(digest[:16] for digest in found)}" if found else "none"
            raise ConfigError(
                f"{text}: {several} of the bundles of {self.uri}; list them: registry list"
            )
        return found[0]

    def bundles(self) -> list[StoredBundle]:
        """Return all bundles, sorted by digest; an unfinished upload is not complete."""
        folder = self.root.folder("bundles")
        sizes: dict[str, int] = {}
        complete = set()
        for item in folder.objects():
            digest, _, name = item.key.removeprefix(folder.prefix).partition("/")
            sizes[digest] = sizes.get(digest, 0) + item.size
            if name == MANIFEST:
                complete.add(digest)
        return [
            StoredBundle(digest, n_bytes, digest in complete)
            for digest, n_bytes in sorted(sizes.items())
        ]

    # Lineages of splits.

    def put_lineage(self, lineage: SplitLineage) -> SplitLineage:
        """Record a lineage unless its name is known, and return what is recorded under the name.

        Raises:
            ConfigError: the name cannot name one.
        """
        self.require_conditional_writes()
        self.root.create(_of_lineage("lineages", lineage.name) + ".json", asdict(lineage))
        return self.root.read(_of_lineage("lineages", lineage.name) + ".json", SplitLineage)

    def lineage(self, name: str) -> SplitLineage | None:
        """Return the recorded salt and fractions of a lineage, or None."""
        return self.root.read_if_any(_of_lineage("lineages", name) + ".json", SplitLineage)

    def put_table(self, data: bytes) -> str:
        """Store the table of samples, splits and groups of a run; return its SHA-256 in hex."""
        digest = hashlib.sha256(data).hexdigest()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "table"
            file.write_bytes(data)
            root = self.root
            root.store.put(root.bucket, f"{root.prefix}tables/{digest}.csv", file, sha256=digest)
        return digest

    def table(self, digest: str) -> bytes:
        """Return the table with this SHA-256.

        Raises:
            ObjectNotFoundError: it is not there.
            ArtifactError: it has other bytes.
        """
        name = f"tables/{digest}.csv"
        data = self.root.store.read(self.root.bucket, self.root.prefix + name)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ArtifactError(f"{self.root.where(name)} was changed; restore it")
        return data

    # Comparisons.

    def claim(
        self,
        *,
        lineage: str,
        challenger: str,
        champion: str,
        question: str = "",
        run: str = "",
        git_commit: str = "",
    ) -> Comparison:
        """Claim the next comparison of a lineage, before its data are looked at.

        A retry, or a later run, with the same challenger, champion and question finds the earlier
        claim and spends nothing.

        Args:
            lineage: name of the lineage.
            challenger: content digest.
            champion: content digest of the champion.
            question: digest of all else that the answer depends on: VAL_TEST, objective, limits.
            run: the run that claims it.
            git_commit: commit of the code, where it is known.

        Raises:
            StoreUnsuitableError: the store ignores conditional writes.
        """
        self.require_conditional_writes()
        asked = (challenger, champion, question)
        earlier = self.comparisons(lineage)
        for comparison in reversed(earlier):
            if comparison.asked == asked:
                return comparison

        claim = _Claim(
            challenger=challenger,
            champion=champion,
            question=question,
            run=run,
            git_commit=git_commit,
            n_decisions_before=max(self.root.folder("decisions").numbers(), default=0),
            claimed_at=_now(),
            code=uuid.uuid4().hex,
        )
        folder = self.root.folder(_of_lineage("comparisons", lineage))
        # From the listing above on: whatever was claimed since may be the same question.
        for number in free_numbers(earlier[-1].number if earlier else 0, folder.where("")):
            if folder.create(numbered(number), asdict(claim)):
                return _comparison(lineage, number, claim, is_new=True)

            other = _comparison(lineage, number, folder.read(numbered(number), _Claim))
            if other.asked == asked:
                return other

        raise AssertionError("free_numbers does not end")

    def comparisons(self, lineage: str) -> list[Comparison]:
        """Return all claimed comparisons of a lineage, the first one first."""
        folder = self.root.folder(_of_lineage("comparisons", lineage))
        return [
            _comparison(lineage, number, folder.read(numbered(number), _Claim))
            for number in folder.numbers()
        ]

    def decision_on(self, comparison: Comparison) -> Decision | None:
        """Return the decision that a comparison has led to, or None before it."""
        numbers = self.root.folder("decisions").numbers()
        for number in numbers:
            if number > comparison.n_decisions_before:
                decision = self.decision(number)
                if (decision.lineage, decision.comparison) == (
                    comparison.lineage,
                    comparison.number,
                ):
                    return decision
        return None

    # Decisions and the champion.

    def champion(self) -> Champion | None:
        """Return the current champion, or None before the first promotion.

        Raises ArtifactError for a pointer that it cannot read.
        """
        found = self._pointer()
        if found is None:
            return None
        pointer, etag = found
        return Champion(
            digest=pointer.digest,
            previous=pointer.previous,
            decision=pointer.decision,
            etag=etag,
        )

    def renew_pointer(self, over: Champion) -> None:
        """Write the same champion anew: who has read the pointer before cannot move it any more.

        Raises:
            StoreConflictError: `over` is not the champion any more.
        """
        found = self._pointer()
        if found is not None and found[1] == over.etag:
            pointer = replace(found[0], n_collections=found[0].n_collections + 1)
            self._swap(pointer, over.etag)
        else:
            raise StoreConflictError(f"{self.root.where(POINTER)}: another writer was first")

    def decide(self, draft: Draft, over: Champion | None) -> Decision:
        """Record a decision and, where it promotes, move the pointer from `over` to the challenger.

        A decision on the same claimed comparison is not recorded twice: of a retry the earlier one
        is returned, whatever the draft says now, and the pointer moves if it has not.

        Args:
            draft: the decision.
            over: the champion that the challenger was compared with, as `champion()` returned it.

        Returns:
            The decision as it is recorded.

        Raises:
            ObjectNotFoundError: the challenger is not in the registry; nothing is recorded.
            StoreConflictError: `over` is not the champion any more. The record stays; read the
                champion again and decide anew.
            StoreUnsuitableError: the store ignores conditional writes; nothing is recorded.
        """
        self.require_conditional_writes()
        if draft.promoted and not self.holds(draft.challenger):
            raise ObjectNotFoundError(
                f"bundle {draft.challenger[:12]}... is not in {self.uri}/bundles/"
            )

        decision = self._earlier(draft, over) or self._record(draft, over)
        if decision.promoted:
            self._move(decision, over)
        return decision

    def decision(self, number: int) -> Decision:
        """Return a recorded decision. Raises ObjectNotFoundError."""
        return self.root.read(f"decisions/{numbered(number)}", Decision)

    def decisions(self) -> Iterator[Decision]:
        """Yield all decisions, the newest one first."""
        for number in reversed(self.root.folder("decisions").numbers()):
            yield self.decision(number)

    def champions(self) -> list[tuple[str, Decision | None]]:
        """Return the digests of the champion and all before it, the newest one first.

        Each with the decision that promoted it, None where none was recorded.
        """
        champion = self.champion()
        if champion is None:
            return []

        found: list[tuple[str, Decision | None]] = []
        digest, previous, number = champion.digest, champion.previous, champion.decision
        while number is not None:
            decision = self.decision(number)
            found.append((digest, decision))
            if decision.champion is None:
                return found
            digest, previous, number = decision.champion, None, decision.over

        # From here on, pointers of earlier releases, which named no decision.
        found.append((digest, None))
        return [*found, (previous, None)] if previous else found

    def predecessors(self) -> list[str]:
        """Return the digests that a rollback can go back to, the nearest one first.

        A rollback takes what it left off the list: the next one goes further back.
        """
        stack: list[str] = []
        for digest, decision in reversed(self.champions()):
            if decision is not None and decision.kind == "rollback" and digest in stack:
                del stack[stack.index(digest) + 1 :]
            else:
                stack.append(digest)
        return stack[-2::-1] if len(stack) > 1 else []

    def _earlier(self, draft: Draft, over: Champion | None) -> Decision | None:
        """Return the decision that an earlier attempt has recorded on the same comparison."""
        if draft.comparison is None:
            return None

        folder = self.root.folder(_of_lineage("comparisons", draft.lineage))
        claim = folder.read(numbered(draft.comparison), _Claim)
        found = self.decision_on(_comparison(draft.lineage, draft.comparison, claim))
        if found is None or not found.promoted:
            return found

        # A champion that was replaced and came back is over another decision: the chain needs it.
        return found if found.over == (over.decision if over else None) else None

    def _record(self, draft: Draft, over: Champion | None) -> Decision:
        """Create the next decision of the chain."""
        folder = self.root.folder("decisions")
        newest = max(folder.numbers(), default=0)
        for number in free_numbers(newest, folder.where("")):
            decision = Decision(
                **asdict(draft),
                number=number,
                champion=over.digest if over else None,
                over=over.decision if over else None,
                recorded_at=_now(),
                code=uuid.uuid4().hex,
            )
            if folder.create(numbered(number), asdict(decision)):
                return decision

        raise AssertionError("free_numbers does not end")

    def _move(self, decision: Decision, over: Champion | None) -> None:
        """Point to the challenger of a recorded decision. Raises StoreConflictError."""
        pointer = _Pointer(decision.challenger, decision.champion, decision.number)
        try:
            self._swap(pointer, over.etag if over else None)
        except StoreConflictError:
            # A retry, whose first attempt has moved the pointer, was not beaten by another writer.
            champion = self.champion()
            if champion is None or champion.decision != decision.number:
                raise

    def _pointer(self) -> tuple[_Pointer, str] | None:
        try:
            return self.root.read_with_etag(POINTER, _Pointer)
        except ObjectNotFoundError:
            return None

    def _swap(self, pointer: _Pointer, etag: str | None) -> None:
        data = canonical_json(asdict(pointer)).encode()
        key = self.root.prefix + POINTER
        self.root.store.compare_and_swap(self.root.bucket, key, data, etag)


def _comparison(lineage: str, number: int, claim: _Claim, *, is_new: bool = False) -> Comparison:
    fields = {name: value for name, value in asdict(claim).items() if name != "code"}
    return Comparison(lineage=lineage, number=number, is_new=is_new, **fields)


def _of_lineage(folder: str, name: str) -> str:
    """Return the folder or document of a lineage; raises ConfigError where it is no name."""
    if not _LINEAGE.fullmatch(name):
        raise ConfigError(
            f"lineage={shown(name)} must be letters, digits, '.', '_' or '-', at most 100"
        )
    return f"{folder}/{name}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
