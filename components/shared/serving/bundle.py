"""Opening and verification of an exported bundle, without torch.

model/              the classifier with calibrator and decision fused into the head: P(positive) >
                    0.5 of a binary task, the largest logit of a multiclass one, also where the
                    policy defers (bundle.json says what could not be fused, and how to decide)
policy.json         the one policy, with its task, its calibrator and its thresholds
gate/               the gate's weights, where the policy is a gate
preprocessing.json  how an image becomes the model's input
onnx/               the same model as ONNX graphs, which decide as the policy, where asked for
onnx_int8/          those graphs quantised, with a policy.json of their own
student/            a transformers image classifier of the full image alone, where one was distilled
reference/          features and logits of held-out images, with which new images are compared
early_exit.json     when the full image is enough, where the model uses several views
bundle.json         name, version, SHA-256 of every other file, lineage, library versions
README.md, model_card.json
                    for readers, and for NATIX
manifest.json       as in every artifact
provenance.json     what the bundle was made of, where that was recorded
model.sig           who made it, where it was signed; it covers every other file
"""

from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import MANIFEST, verify_dir
from components.shared.contracts.documents import as_type, read_json
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.formats import ONNX, ONNX_INT8
from components.shared.contracts.listing import first_of, printable, shown, warn
from components.shared.contracts.outcomes import Outcomes
from components.shared.data.drift_reference import DriftReference, read_reference
from components.shared.policies.early_exit import EarlyExit, read_early_exit
from components.shared.policies.policy import Policy, parse_policy
from components.shared.serving.signature import check_signature, unchecked_warning
from components.shared.vision.classifier_spec import ClassifierSpec

MODEL, POLICY, PREPROCESSING, DOCUMENT = "model", "policy.json", "preprocessing.json", "bundle.json"
GATE, DISTILLED_MODEL, REFERENCE = "gate", "student", "reference"
# Folders of further forms; of these, the ones whose policy is their own.
_FORMS, _OWN_POLICY = (ONNX, ONNX_INT8), (ONNX_INT8,)
_SPEC = ("image_size", "image_mean", "image_std", "backbone_type", "views")


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        path: The directory.
        policy: The policy of policy.json.
        spec: The classifier without its weights, from policy.json and preprocessing.json.
        stock: Whether model/ is a transformers image classification model.
        early_exit: When the full image is enough, of a model of several views.
        versions: Versions of the libraries that exported it, by package.
        reference_logits: Logits before folding of the reference image, in the policy's order;
            None in bundles of earlier releases.
        name: What messages call the directory; empty: its path.
        form_policies: Policies of forms that have their own, by the form's folder.
        refused_formats: Formats that were asked for, and why the bundle is without them.
        signer: Who signed it: a key's digest or a certificate's subject; empty where no trusted
            keys are named, and the signature was not looked at.
    """

    path: Path
    policy: Policy
    spec: ClassifierSpec
    stock: bool
    early_exit: EarlyExit | None = None
    versions: dict[str, str] = field(default_factory=dict)
    reference_logits: list[float] | None = None
    name: str = ""
    form_policies: dict[str, Policy] = field(default_factory=dict)
    refused_formats: dict[str, str] = field(default_factory=dict)
    signer: str = ""

    @property
    def forms(self) -> list[str]:
        """Folders of the forms of the model beside the first one."""
        return [form for form in _FORMS if (self.path / form).is_dir()]

    def policy_of(self, form: str) -> Policy:
        """Return the policy of a form: that of the bundle, unless the form has its own."""
        return self.form_policies.get(form, self.policy)

    @property
    def has_reference(self) -> bool:
        """Whether the bundle has a drift reference; those of earlier releases have none."""
        return (self.path / REFERENCE).is_dir()

    def drift_reference(self) -> DriftReference:
        """Read the drift reference.

        Raises:
            ArtifactError: the bundle has none, or one of other classes or with damaged files.
        """
        folder = self.path / REFERENCE
        if not self.has_reference:
            raise ArtifactError(
                f"{self.name or self.path}: has no {REFERENCE}/ with which new images could be"
                " compared, as bundles of earlier releases; export the bundle again"
            )

        found = read_reference(folder)
        if found.class_names != self.policy.class_names:
            raise ArtifactError(
                f"{self.place(REFERENCE)}: has the classes {shown(list(found.class_names))}, the"
                f" policy {shown(list(self.policy.class_names))}; it belongs to another bundle"
            )
        return found

    def place(self, entry: str) -> str:
        """Return what messages call a file or folder of the bundle."""
        return f"{self.name or self.path}/{entry}"

    def signature_warning(self, name: str = "") -> str:
        """Return what should be known where no signature was checked; empty if one was.

        name: what the bundle is called; empty: its own name, or its path.
        """
        return "" if self.signer else unchecked_warning(self.path, name or self.name)

    def warn_unchecked(self, name: str = "") -> None:
        """Say on stderr, in one line, where nobody has checked who made it; `name` as above."""
        if warning := self.signature_warning(name):
            warn(warning)

    def version_differences(self) -> str:
        """Return which libraries have another version here, as text; empty if none."""
        return ", ".join(
            f"{name} {_installed(name)} here, {recorded} at the export"
            for name, recorded in sorted(self.versions.items())
            if _installed(name) not in (recorded, None)
        )


@dataclass(frozen=True)
class _Document:
    """The entries of bundle.json that are needed to open it; the others are for people."""

    files: dict[str, str]
    stock_pipeline: bool
    versions: dict[str, str] = field(default_factory=dict)
    reference_logits: list[float] | None = None
    refused_formats: dict[str, str] = field(default_factory=dict)


def stock_order(outcomes: Outcomes) -> list[int]:
    """Return which class each label of the stock model is.

    The positive one of two classes comes last, as consumers of NATIX's None and Roadwork expect;
    several classes stay as they are.
    """
    classes = list(range(len(outcomes.class_names)))
    return classes[::-1] if len(classes) == 2 and outcomes.positive == 0 else classes


def open_bundle(path: Path, digest: str | None = None, *, trusted_keys: str | Path = "") -> Bundle:
    """Verify and read a bundle; needs neither torch nor transformers.

    Args:
        path: The directory.
        digest: Content digest that the bundle must have, 64 lower-case hex digits; None accepts
            any. The sums of the manifest protect against damage, a digest from elsewhere also
            against people who write new sums.
        trusted_keys: PEM file of keys and authorities, one of which must have signed it; empty:
            that of STREETVISION_TRUSTED_KEYS, and where that is not set, no signature is needed.

    Raises:
        ConfigError: the file of trusted keys is missing or holds none.
        ArtifactError: not signed by a trusted key; or listing every difference from the manifest or
            from bundle.json; or for another digest, another number of policies than one, or
            documents that are damaged or contradict each other.
    """
    signer = check_signature(path, trusted_keys)  # first: the sums have to be the signer's
    manifest = verify_dir(path, Kind.BUNDLE)
    if digest is not None and manifest.content_digest != digest:
        raise ArtifactError(
            f"{path}: its content digest is {manifest.content_digest}, expected {shown(digest)};"
            " this is another bundle, or somebody changed it"
        )

    recorded = {name: entry["sha256"] for name, entry in manifest.files.items()}
    own = [f"{form}/{POLICY}" for form in _OWN_POLICY if f"{form}/{POLICY}" in recorded]
    policies = sorted(name for name in recorded if name.rsplit("/", 1)[-1] == POLICY)
    if policies != sorted([POLICY, *own]):
        found = first_of(map(printable, policies)) or "none"
        raise ArtifactError(f"{path}: must hold exactly one {POLICY}, holds {found}")

    document = _document(path / DOCUMENT)
    recorded.pop(DOCUMENT, None)  # a file cannot hold its own digest
    differing = sorted(
        name
        for name in recorded.keys() | document.files.keys()
        if recorded.get(name) != document.files.get(name)
    )
    if differing:
        listed = first_of(map(printable, differing))
        raise ArtifactError(f"{path / DOCUMENT}: disagrees with {MANIFEST} about {listed}")

    policy = parse_policy(_read(path / POLICY), str(path / POLICY))
    spec = spec_of(_read(path / PREPROCESSING), policy, str(path / PREPROCESSING))

    return Bundle(
        path,
        policy,
        spec,
        document.stock_pipeline,
        _early_exit(path, spec),
        document.versions,
        document.reference_logits,
        form_policies={
            name.removesuffix(f"/{POLICY}"): _form_policy(path / name, policy) for name in own
        },
        refused_formats=document.refused_formats,
        signer=signer,
    )


def spec_of(preprocessing: Any, policy: Policy, where: str) -> ClassifierSpec:
    """Return the specification in preprocessing.json with the policy's classes.

    Raises ArtifactError where a value is missing, of another type or outside its range.
    """
    if not isinstance(preprocessing, dict):
        raise ArtifactError(f"{where}: must be a JSON object, not {shown(preprocessing, 60)}")
    values = {name: preprocessing[name] for name in _SPEC if name in preprocessing}
    return ClassifierSpec.from_json(values | {"class_names": list(policy.class_names)}, where)


def _form_policy(file: Path, policy: Policy) -> Policy:
    """Read the policy of a form, whose outcomes must be those of the bundle's."""
    found = parse_policy(_read(file), str(file))
    if found.outcomes != policy.outcomes:
        raise ArtifactError(
            f"{file}: is for the outcomes {shown(list(found.outcomes.names))}, the bundle for"
            f" {shown(list(policy.outcomes.names))}"
        )
    return found


def _early_exit(path: Path, spec: ClassifierSpec) -> EarlyExit | None:
    found = read_early_exit(path)
    n_views = 1 if spec.views is None else spec.views.count
    if found is not None and (spec.views is None or found.n_views != n_views):
        raise ArtifactError(
            f"{path}: early_exit.json is for {found.n_views} views, the model uses {n_views}"
        )
    return found


def _document(file: Path) -> _Document:
    document = _read(file)
    if not isinstance(document, dict):
        raise ArtifactError(f"{file}: must be a JSON object, not {shown(document, 60)}")
    known = {
        entry.name: document[entry.name] for entry in fields(_Document) if entry.name in document
    }
    return as_type(known, _Document, str(file))


def _read(file: Path) -> Any:
    if not file.is_file():
        raise ArtifactError(f"{file}: missing; export the bundle again")
    return read_json(file)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
