"""The verb `promote`: a person asks for a bundle to become the champion."""

import sys
import tempfile
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.shared.contracts.errors import ArtifactError, ConfigError
from components.shared.contracts.listing import warn
from pipelines.cli.declare import CHAMPION, verb
from pipelines.cli.registry import finish, login, print_json
from pipelines.cli.registry_options import (
    AnnounceOptions,
    Json,
    RegistryOptions,
    TrustedKeys,
    opened,
)
from pipelines.exit_codes import REFUSED
from pipelines.kubeflow.options import ApiAddress, StoreOptions
from pipelines.sources import commit

if TYPE_CHECKING:
    from components.promote_bundle.challenger import Challenger
    from components.promote_bundle.config import PromoteConfig
    from components.shared.contracts.artifacts import Manifest
    from components.shared.storage.registry import BundleRegistry, Draft
    from components.shared.storage.registry.announcement import Announcement

app = typer.Typer()

_NOTES = """
examples:
  python -m pipelines promote BUNDLE --because 'first model of the new camera'
  python -m pipelines promote 3f2a9c1b7d4e --because 'seen on the road' --artifacts downloads
  python -m pipelines promote BUNDLE --because 'the other one fails at night' --force

The checks are those of the phase promote_bundle: the challenger and the champion answer the same
images of VAL_TEST, the comparison is counted, and the decision is recorded. --force makes none of
them, and the record says so.

exit code: 0 promoted, or the champion already; 3 refused
"""


@verb(app, "promote", CHAMPION, notes=_NOTES)
def promote(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="Folder of a bundle, or a digest.")
    ],
    where: RegistryOptions,
    api: ApiAddress,
    store: StoreOptions,
    announce: AnnounceOptions,
    because: Annotated[
        str, typer.Option("--because", metavar="TEXT", help="Why; it is recorded.")
    ] = "",
    artifacts: Annotated[
        Path,
        typer.Option(
            "--artifacts",
            metavar="FOLDER",
            help="Folder of runs, or of downloaded ones, in which the dataset, splits and logits of"
            " the bundle are found by their digests.",
        ),
    ] = Path("runs"),
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            metavar="KEY=VALUE",
            help="Option of promote_bundle, such as promotion=not_worse. May be repeated.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote without a comparison and without guards.")
    ] = False,
    trusted_keys: TrustedKeys = "",
    json: Json = False,
) -> None:
    """Promote a bundle by hand: with the checks of a run, or --force; recorded either way."""
    from components.shared.serving.signature import check_signature, trusting, unchecked_warning

    if not because.strip():
        raise ConfigError("give --because TEXT: the record of a promotion by hand says why")

    config = _config(param or [])
    announcement = announce.checked()
    with (
        trusting(trusted_keys),
        opened(where, api, store) as found,
        folder_of(found, bundle) as folder,
    ):
        signer, code = check_signature(folder), 0
        if force:
            draft = _forced(found, folder, artifacts, because)
            finish(found, found.decide(draft, found.champion()), announcement, as_json=json)
        else:
            code = _compared(
                found, _challenger(folder, artifacts), config, because, announcement, as_json=json
            )
        if not signer:
            warn(unchecked_warning(folder))
    if code:
        sys.exit(code)


def _compared(
    found: "BundleRegistry",
    challenger: "Challenger",
    config: "PromoteConfig",
    because: str,
    announcement: "Announcement",
    *,
    as_json: bool,
) -> int:
    """Compare with the champion as a run does, print the decision, and return the exit code."""
    from components.promote_bundle.promote import Author
    from components.promote_bundle.promote import promote as decide

    author = Author(run="promote", git_commit=commit(), by=login(), because=because)
    outcome = decide(config, challenger, found, author)

    if outcome.is_new:
        assert outcome.decision is not None, "a new decision has a record"
        finish(found, outcome.decision, announcement, as_json=as_json)
        return 0 if outcome.promoted else REFUSED

    if as_json:
        print_json(None if outcome.decision is None else asdict(outcome.decision))
    else:
        print(f"{challenger.digest[:12]} is the champion already; nothing was compared")
    return 0


def _forced(found: "BundleRegistry", folder: Path, artifacts: Path, because: str) -> "Draft":
    """Register a bundle, and return the draft of its promotion without any check."""
    from components.shared.contracts.artifacts import code_version, read_manifest
    from components.shared.serving.bundle import open_bundle
    from components.shared.storage.registry import Draft, Provenance

    digest = read_manifest(folder).content_digest
    over = found.champion()
    if over is not None and over.digest == digest:
        raise ConfigError(f"{digest[:12]} is the champion already")

    open_bundle(folder)
    provenance, lineage = Provenance(run="promote", git_commit=commit()), ""
    try:
        challenger = _challenger(folder, artifacts)
    except (ArtifactError, ConfigError):
        reason = "by hand, without a comparison; its lineage is not known"
    else:
        reason, lineage = "by hand, without a comparison", challenger.lineage.name
        provenance = replace(
            provenance,
            lineage=found.put_lineage(challenger.lineage),
            split_table=found.put_table(challenger.table),
            code_version=challenger.manifests["bundle"].code_version,
        )

    found.put_bundle(folder, provenance)
    return Draft(
        kind="by_hand",
        promoted=True,
        challenger=digest,
        reason=reason,
        because=because,
        lineage=lineage,
        run="promote",
        git_commit=commit(),
        code_version=code_version(),
        by=login(),
    )


@contextmanager
def folder_of(found: "BundleRegistry", bundle: str) -> Iterator[Path]:
    """Yield the folder of a bundle, which is downloaded where a digest names it."""
    if Path(bundle).is_dir():
        yield Path(bundle)
        return
    if not all(character in "0123456789abcdef" for character in bundle):
        raise ConfigError(f"{bundle} is neither the folder of a bundle nor a digest")

    with tempfile.TemporaryDirectory(prefix="bundle-") as folder:
        path = Path(folder) / "bundle"
        found.get_bundle(found.resolve(bundle), path)
        yield path


@dataclass(frozen=True)
class _Sources:
    """Artifacts below a folder, by their content digests."""

    folder: Path
    found: dict[str, tuple[Path, "Manifest"]]

    @classmethod
    def below(cls, folder: Path) -> "_Sources":
        """Read the manifests below `folder`, without hidden folders and without links."""
        from components.shared.contracts.artifacts import MANIFEST, read_manifest

        found = {}
        for file in sorted(folder.rglob(MANIFEST)) if folder.is_dir() else []:
            parts = file.relative_to(folder).parts
            if any(part.startswith(".") for part in parts) or file.is_symlink():
                continue
            try:
                manifest = read_manifest(file.parent)
            except ArtifactError:
                continue  # of another program, or of an earlier schema
            found[manifest.content_digest] = (file.parent, manifest)
        return cls(folder, found)

    def path(self, digest: str | None) -> Path | None:
        """Return where an artifact is, or None."""
        return self.found[digest][0] if digest in self.found else None

    def required(self, name: str, digest: str | None) -> Path:
        """Return where an artifact is. Raises ConfigError."""
        path = self.path(digest)
        if path is None:
            raise ConfigError(
                f"{self.folder} has not the {name} that the bundle was made from"
                f" ({(digest or 'unknown')[:12]}); give --artifacts the folder of its run, or fetch"
                " it: download RUN_ID"
            )
        return path

    def splits(self, digest: str | None, dataset: str) -> Path:
        """Return the splits: by their digest, or where it is not recorded the ones of a dataset."""
        if digest is not None:
            return self.required("splits", digest)
        digests = [
            found
            for found, (_, manifest) in self.found.items()
            if manifest.kind == "Splits" and manifest.inputs.get("dataset") == dataset
        ]
        return self.required("splits", digests[0] if len(digests) == 1 else None)


def _challenger(folder: Path, artifacts: Path) -> "Challenger":
    """Read the bundle with what it was made from, which its manifests name by digest."""
    from components.promote_bundle.challenger import read_challenger
    from components.shared.contracts.artifacts import read_manifest
    from components.shared.contracts.documents import read_json

    sources = _Sources.below(artifacts)
    inputs = read_manifest(folder).inputs
    dataset = inputs.get("dataset")
    recorded = _lineage(read_json(folder / "bundle.json"))
    evaluation = inputs.get("evaluation")
    of_evaluation = recorded.get("evaluation", {})

    return read_challenger(
        folder,
        sources.required("dataset", dataset),
        sources.splits(recorded.get("checkpoint", {}).get("splits"), dataset or ""),
        val_test_logits=sources.path(of_evaluation.get("val_test_logits")),
        gate_test_logits=sources.path(of_evaluation.get("gate_test_logits")),
        evaluation=sources.path(evaluation),
    )


def _lineage(document: Any) -> dict[str, dict[str, str]]:
    """Return artifact -> inputs by digest, as bundle.json records them."""
    lineage = document.get("lineage", {}) if isinstance(document, dict) else {}
    return {
        name: entry["inputs"]
        for name, entry in lineage.items()
        if isinstance(entry, dict) and isinstance(entry.get("inputs"), dict)
    }


def _config(pairs: Sequence[str]) -> "PromoteConfig":
    """Return the options of the phase; the verb announces by itself. Raises ConfigError."""
    from components.configure.resolve import number
    from components.promote_bundle.config import PromoteConfig
    from pipelines.plain_yaml import parse_yaml

    hints = typing.get_type_hints(PromoteConfig)
    values: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator:
            raise ConfigError(f"--param {pair!r} must be key=value")
        value = text if hints.get(key) is str else parse_yaml(text, f"--param {key}")
        is_number = {int, float} & {hints.get(key), *typing.get_args(hints.get(key))}
        # YAML 1.1 reads 1e-3 as text.
        values[key] = number(value) if isinstance(value, str) and is_number else value

    return PromoteConfig.from_mapping(values)
