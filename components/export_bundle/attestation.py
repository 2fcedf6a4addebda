"""Where a bundle comes from, as an in-toto statement, and the signature over the whole bundle.

Both lie beside the manifest: the statement names the manifest and every file by digest, and the
commit, which is another one for the same bytes. The content digest depends on neither.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from components.export_bundle.config import ExportConfig
from components.shared.contracts.artifacts import (
    MANIFEST,
    PROVENANCE,
    Manifest,
    sha256_file,
    write_json,
)
from components.shared.contracts.documents import as_type, parse_json
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.serving.signature import (
    TrustedKeys,
    check_signer,
    sign_bundle,
    signing_key,
    verify_signature,
)

# Predicate of https://slsa.dev/spec/v1.0/provenance, whose build types are URIs of their makers.
_PREDICATE = "https://slsa.dev/provenance/v1"
_BUILD, _BUILDER = "urn:streetvision:export_bundle:1", "urn:streetvision:pipeline"
# Where the user keeps things: the bundle goes to others. The digests say what it was.
_PLACES = ("data", "backbone", "csv", "extra_sources", "stage2_logits", "exclude", "relabel")


@dataclass(frozen=True)
class Attestation:
    """Who signs the bundle, and who must accept the signature; None: nobody."""

    key: Path | None
    trusted: TrustedKeys | None

    @classmethod
    def checked(cls, config: ExportConfig) -> Self:
        """Return what the environment names, before any work is done.

        Raises:
            ConfigError: a key without trusted keys, or the other way round; trusted keys that do
                not accept the key, or other ones than the run began with.
        """
        key, trusted = signing_key(), TrustedKeys.of()
        found = "" if trusted is None else trusted.digest
        if config.trusted_keys and config.trusted_keys != found:
            raise ConfigError(
                f"{Variable.TRUSTED_KEYS} names other keys than the run began with"
                f" ({(found or 'none')[:12]}, not {config.trusted_keys[:12]}); start it again"
            )
        if trusted is None and key is not None:
            raise ConfigError(
                f"{Variable.SIGNING_KEY} is set and {Variable.TRUSTED_KEYS} is not: name the file"
                " with the public half, by which the signature is checked, and a change of the key"
                " reaches the cache keys"
            )
        if trusted is not None and key is None:
            raise ConfigError(
                f"{Variable.TRUSTED_KEYS} is set, so that the bundle must be signed, and"
                f" {Variable.SIGNING_KEY} is not; name the private key, on a cluster by the Secret"
                " streetvision-signing"
            )

        if key is not None and trusted is not None:
            check_signer(key, trusted)
        return cls(key, trusted)

    def write(self, out: Path, manifest: Manifest, inputs: Mapping[str, Manifest]) -> None:
        """Write provenance.json and, with a key, model.sig.

        Args:
            out: The complete bundle.
            manifest: Its manifest.
            inputs: The manifests of what it was made from, by name.
        """
        write_json(out / PROVENANCE, statement(out, manifest, inputs))
        if self.key is not None and self.trusted is not None:
            sign_bundle(out, self.key)
            verify_signature(out, self.trusted)


def statement(out: Path, manifest: Manifest, inputs: Mapping[str, Manifest]) -> dict[str, Any]:
    """Return the in-toto statement: subjects are the files, the predicate is SLSA's provenance."""
    from google.protobuf import json_format
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
    from in_toto_attestation.v1.statement import Statement

    digests = {name: str(entry["sha256"]) for name, entry in manifest.files.items()}
    digests[MANIFEST] = sha256_file(out / MANIFEST)
    subjects = [
        ResourceDescriptor(name=name, digest={"sha256": digest}).pb
        for name, digest in sorted(digests.items())
    ]

    found = Statement(subjects, _PREDICATE, _predicate(manifest, inputs))
    found.validate()
    document: dict[str, Any] = json_format.MessageToDict(found.pb)
    return document


def _predicate(manifest: Manifest, inputs: Mapping[str, Manifest]) -> dict[str, Any]:
    by_name = {"bundle": manifest, **inputs}
    return {
        "buildDefinition": {
            "buildType": _BUILD,
            "externalParameters": {name: _options(entry) for name, entry in by_name.items()},
            "internalParameters": {
                name: {"step": entry.step, "codeVersion": entry.code_version}
                for name, entry in by_name.items()
            }
            | _images(),
            "resolvedDependencies": [*_artifacts(inputs), *_code()],
        },
        "runDetails": {
            "builder": {"id": _BUILDER},
            "metadata": {"invocationId": os.environ.get(Variable.RUN, "")},
        },
    }


def _images() -> dict[str, Any]:
    """Return the pushed images of all phases, where the environment names them.

    A step that came from KFP's cache ran in the same one: the image is a part of its key.
    """
    named = os.environ.get(Variable.IMAGES, "")
    if not named:
        return {}
    images = parse_json(named.encode(), str(Variable.IMAGES))
    return {"images": as_type(images, dict[str, str], str(Variable.IMAGES))}


def _options(manifest: Manifest) -> dict[str, Any]:
    """Return the options of the step, without the places where its user keeps things."""
    return {name: value for name, value in manifest.config.items() if name not in _PLACES}


def _artifacts(inputs: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    """Return what the bundle was made from, and what that was made from, by content digest."""
    found = {name: manifest.content_digest for name, manifest in inputs.items()}
    for name, manifest in inputs.items():
        found |= {f"{name}/{part}": digest for part, digest in manifest.inputs.items()}
    return [
        {"name": name, "digest": {"contentDigest": digest}}
        for name, digest in sorted(found.items())
    ]


def _code() -> list[dict[str, Any]]:
    """Return commit and image of the step, where the environment names them."""
    commit, image = (os.environ.get(name, "") for name in (Variable.GIT_COMMIT, Variable.IMAGE))
    found: list[dict[str, Any]] = []
    if commit:
        found.append({"name": "source", "digest": {"gitCommit": commit}})
    if image:
        _, _, digest = image.partition("@sha256:")
        pinned = {"digest": {"sha256": digest}} if digest else {}
        found.append({"name": "image", "uri": f"docker://{image}"} | pinned)
    return found
