"""What is fuzzed: each target is a reader, and a strategy of the inputs that it gets.

Artifacts are those of `tests/golden`; their sums are recomputed after each change, because unsigned
damage never reaches a reader.
"""

import contextlib
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from PIL import Image

from components.configure.config import RunForm
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.sources.config import SourceConfig
from components.ingest_dataset.sources.labels import label_sources
from components.ingest_dataset.sources.open import open_source
from components.ingest_dataset.step import run as ingest
from components.shared.calibration import registry
from components.shared.contracts.artifacts import verify_dir
from components.shared.contracts.documents import parse_json
from components.shared.contracts.errors import StreetVisionError
from components.shared.data.dataset import Dataset
from components.shared.data.decode import ImageRejectedError, decode_resized
from components.shared.data.splits import read_splits
from components.shared.data.train_images import TrainImages
from components.shared.data.train_labels import read_train_labels
from components.shared.policies.early_exit import DOCUMENT as EARLY_EXIT
from components.shared.policies.evaluation_report import read_report
from components.shared.policies.logits import read_logits
from components.shared.policies.policy_artifact import read_policy
from components.shared.serving.bundle import open_bundle
from components.shared.vision.classifier_spec import read_spec
from pipelines.parameters import Variant, read_parameters, validated
from tests.fuzz.mutations import changed_bytes, changed_document, changed_file, changed_json
from tests.golden.make import FOLDER
from tests.resigned import resign, signed

TYPED = (StreetVisionError, ImageRejectedError)
EARLY = {
    "n_views": 5,
    "certain_from": None,
    "positive_from": 1.0,
    "negative_to": -1.0,
    "max_changed": 0.1,
    "delta": 0.1,
    "n_images": 9,
    "n_changed": 0,
    "changed_upper_bound": 0.05,
}


class Target(NamedTuple):
    """A reader of an input, and the inputs that it gets."""

    read: Callable[[Any], object]
    inputs: st.SearchStrategy[Any]


class Artifact:
    """A copy of a golden artifact, one file of which a case changes and another restores."""

    def __init__(self, root: Path, name: str) -> None:
        self.path = Path(shutil.copytree(FOLDER / name, root / name))
        files = [file for file in sorted(self.path.rglob("*")) if file.is_file()]
        self.files = {
            file.relative_to(self.path).as_posix(): file.read_bytes()
            for file in files
            if file.name != "manifest.json"
        }
        self.manifest = (self.path / "manifest.json").read_bytes()

    def changes(self, *suffixes: str) -> st.SearchStrategy[tuple[str, bytes]]:
        """Strategy of a file's name and new content, among those that end so."""
        names = [name for name in self.files if name.endswith(suffixes)]
        return st.one_of(
            *(st.tuples(st.just(name), changed_file(name, self.files[name])) for name in names)
        )

    @contextlib.contextmanager
    def changed(self, change: tuple[str, bytes]) -> Iterator[Path]:
        """The artifact with one file changed and all sums recomputed."""
        name, data = change
        file = self.path / name
        file.write_bytes(data)
        if (self.path / "bundle.json").is_file() and name != "bundle.json":
            document = json.loads(self.files["bundle.json"])
            document["files"][name] = hashlib.sha256(data).hexdigest()
            (self.path / "bundle.json").write_text(json.dumps(document))
        resign(self.path)
        try:
            yield self.path
        finally:
            for restored in (name, "bundle.json"):
                if restored in self.files:
                    (self.path / restored).write_bytes(self.files[restored])
                else:
                    (self.path / restored).unlink(missing_ok=True)


def _artifact(root: Path, name: str, read: Callable[[Path], object], *suffixes: str) -> Target:
    artifact = Artifact(root, name)

    def case(change: tuple[str, bytes]) -> object:
        with artifact.changed(change) as path:
            return read(path)

    return Target(case, artifact.changes(*suffixes))


def manifest(root: Path) -> Target:
    """`verify_dir`, on manifests with the digest that belongs to them."""
    artifact = Artifact(root, "softmax_policy")
    document = json.loads(artifact.manifest)

    def case(data: bytes) -> object:
        (artifact.path / "manifest.json").write_bytes(data)
        return verify_dir(artifact.path, "Policy")

    def sign(value: Any) -> bytes:
        try:
            return signed(value)
        except (AttributeError, ValueError):
            return json.dumps(value).encode()

    values = changed_document(document).map(sign)
    return Target(case, st.one_of(values, values, changed_bytes(artifact.manifest)))


def policy(root: Path) -> Target:
    """`read_policy` of every kind with every calibrator, and its decisions."""
    artifact = Artifact(root, "softmax_policy")
    documents = [
        json.loads((FOLDER / name / "policy.json").read_bytes())
        for name in ("softmax_policy", "scrc_policy", "gate_policy")
    ]
    calibrators = [
        None,
        {"name": "temperature", "temperature": 1.5},
        {"name": "platt", "slope": [1.0], "intercept": [0.5]},
        {"name": "vector", "scale": [1.0, 1.0], "offset": [0.0, 0.0]},
        {"name": "beta", "a": [1.0], "b": [1.0], "c": [0.0]},
        {
            "name": "dirichlet",
            "weights": [[1.0, 0.0], [0.0, 1.0]],
            "intercept": [0.0, 0.0],
            "off_diagonal": 1.0,
            "intercept_penalty": 1.0,
        },
        {"name": "isotonic", "knots": [[0.0, 1.0]], "values": [[0.0, 1.0]]},
        {"name": "histogram", "frequencies": [[0.1, 0.9]]},
    ]
    choices = [
        json.dumps(document | {"calibrator": calibrator}).encode()
        for document in documents
        for calibrator in calibrators
    ]
    logits = np.array([[0.0, 1.0], [3.0, -2.0]], dtype=np.float32)

    def case(data: bytes) -> object:
        with artifact.changed(("policy.json", data)) as path:
            found, _ = read_policy(path)
        # A policy of other classes than these logits' two is for other logits.
        if len(found.class_names) != 2:
            return found
        decided = found.decide(logits, np.array([0.1, 0.2], dtype=np.float32))
        assert np.isfinite(found.probabilities(logits)).all()
        return decided

    return Target(case, st.sampled_from(choices).flatmap(changed_json))


def logits(root: Path) -> Target:
    """`read_logits` of an artifact with gate scores."""
    return _artifact(
        root,
        "gate_test_logits",
        lambda path: read_logits(path, "VAL_TEST"),
        ".json",
        ".npy",
        ".csv",
    )


def bundle(root: Path) -> Target:
    """`open_bundle`, with an early exit among its documents."""
    artifact = Artifact(root, "bundle")
    exits = changed_json(json.dumps(EARLY).encode())

    def case(change: tuple[str, bytes]) -> object:
        with artifact.changed(change) as path:
            return open_bundle(path)

    names = ("bundle.json", "policy.json", "preprocessing.json")
    return Target(case, st.one_of(artifact.changes(*names), st.tuples(st.just(EARLY_EXIT), exits)))


def artifacts(root: Path) -> Target:
    """The readers of all other artifacts."""
    images = TrainImages.open(FOLDER / "train_images")
    targets = [
        _artifact(root, "dataset", Dataset.open, ".json", ".csv", ".npy"),
        _artifact(root, "splits", read_splits, ".csv"),
        _artifact(root, "train_images", TrainImages.open, ".json", ".npy"),
        _artifact(
            root, "train_labels", lambda path: read_train_labels(path, images), ".json", ".csv"
        ),
        _artifact(root, "evaluation", read_report, "eval_report.json"),
        _artifact(root, "checkpoint", read_spec, "classifier.json"),
        _artifact(
            root,
            "calibration",
            lambda path: registry.parse(
                parse_json((path / "calibrator.json").read_bytes(), "calibrator.json"), "calibrator"
            ),
            "calibrator.json",
        ),
    ]
    inputs = [
        target.inputs.map(lambda change, number=number: (number, change))
        for number, target in enumerate(targets)
    ]
    return Target(lambda case: targets[case[0]].read(case[1]), st.one_of(*inputs))


def configuration(root: Path) -> Target:
    """`validated`, on a run's form with changed values and overrides."""
    del root
    form: dict[str, Any] = {name: "" for name in RunForm.__dataclass_fields__ if name != "recipe"}
    form |= {
        "data": "photos",
        "backbone": "facebook/dinov2-small",
        "epochs": "3",
        "learning_rate": "1e-3",
        "overrides": {
            "dropout": 0.1,
            "label_map": {"0": "None", "1": "Roadwork"},
            "train_gate": {"epochs": 2},
            "holdout_values": ["a"],
            "holdout_column": "day",
            "adapter_options": '{"bias": "all"}',
            "extra_sources": '[{"data": "x"}]',
            "n_processes": 2,
            "gradient_clip": 1.0,
        },
    }

    def case(value: Any) -> object:
        return validated(value if isinstance(value, dict) else {}, Variant())

    return Target(case, changed_document(form))


def parameters(root: Path) -> Target:
    """`read_parameters` of a file of any bytes."""
    file = root / "run.yaml"
    text = (
        b"data: photos\nbackbone: facebook/dinov2-small\nepochs: 3\nlearning_rate: 1e-3\n"
        b"label_map: {'0': None, '1': Roadwork}\nholdout_values: [a, b]\nholdout_column: day\n"
        b'extra_sources: \'[{"data": "x"}]\'\ntrain_gate:\n  epochs: 2\noverrides: {dropout: 0.2}\n'
    )

    def case(data: bytes) -> object:
        file.write_bytes(data)
        return read_parameters(file, [], Variant())

    return Target(case, changed_bytes(text))


def _records(folder: Path) -> list[object]:
    """Read a source to its end; what it says of its columns is left out of the tally."""
    with contextlib.redirect_stdout(io.StringIO()):
        return _read_records(folder)


def _read_records(folder: Path) -> list[object]:
    source = open_source(SourceConfig(data=str(folder)))
    classes = label_sources([source], ("None", "Roadwork")).of_sources[0]
    found: list[object] = []
    for record in source.records(classes):
        try:
            found.append(record.read())
        except ImageRejectedError:
            found.append(None)
    return found


_CSV = b'path,label,group,note\n0.jpg,0,a,x\n"1.jpg",1,"b,c",\n2.jpg,-1,d,"q""q"\n'


def _images(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(3):
        Image.new("RGB", (20, 20), (number * 80, number * 10, 99)).save(folder / f"{number}.jpg")


def csv(root: Path) -> Target:
    """A CSV source, with its images."""
    _images(root / "csv")

    def case(data: bytes) -> object:
        (root / "csv/labels.csv").write_bytes(data)
        return _records(root / "csv")

    return Target(case, changed_bytes(_CSV))


def ingested_csv(root: Path) -> Target:
    """A CSV through ingest, and the data set that it became."""
    _images(root / "data")
    config = IngestConfig(
        data=str(root / "data"), image_size=16, max_reject_fraction=1.0, near_duplicate_distance=0
    )

    def case(data: bytes) -> object:
        (root / "data/labels.csv").write_bytes(data)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            ingest(config, dataset=root / "out")
        opened = Dataset.open(root / "out")
        assert len(opened.samples) == sum(map(len, opened.shards))
        return opened

    return Target(case, changed_bytes(_CSV.replace(b"-1", b"1")))


def parquet(root: Path) -> Target:
    """A Parquet source with images in its rows."""
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), (80, 10, 99)).save(stream, "JPEG")
    image = stream.getvalue()
    table = pa.table(
        {
            "image": [{"bytes": image, "path": f"{number}.jpg"} for number in range(4)],
            "label": ["0", "1", "0", "1"],
            "group": list("abcd"),
            "note": [1.5, None, 3.0, 4.0],
        }
    )
    (root / "parquet").mkdir()
    file = root / "parquet/x.parquet"
    pq.write_table(table, file, compression="none")

    def case(data: bytes) -> object:
        file.write_bytes(data)
        return _records(root / "parquet")

    return Target(case, changed_bytes(file.read_bytes()))


def decoding(root: Path) -> Target:
    """Images of every format that is decoded."""
    del root
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))
    formats: list[tuple[str, dict[str, Any]]] = [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ]
    seeds = []
    for name, options in formats:
        stream = io.BytesIO()
        image.save(stream, name, **options)
        seeds.append(stream.getvalue())

    def changed(data: bytes) -> st.SearchStrategy[bytes]:
        heads = [min(length, len(data)) for length in (30, 200, len(data))]
        return st.sampled_from(heads).flatmap(
            lambda n: changed_bytes(data[:n]).map(lambda head: head + data[n:])
        )

    def case(data: bytes) -> object:
        return decode_resized(data, size=16)

    return Target(case, st.sampled_from(seeds).flatmap(changed))


TARGETS: dict[str, Callable[[Path], Target]] = {
    function.__name__: function
    for function in (
        manifest,
        policy,
        logits,
        bundle,
        artifacts,
        configuration,
        parameters,
        csv,
        ingested_csv,
        parquet,
        decoding,
    )
}


@contextlib.contextmanager
def opened(name: str) -> Iterator[Target]:
    """A target, with a folder for its files."""
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as folder:
        yield TARGETS[name](Path(folder))
