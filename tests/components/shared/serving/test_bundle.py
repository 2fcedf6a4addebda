"""A bundle opens with its documents checked, or is refused with one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.shared.contracts.artifacts import read_manifest
from components.shared.contracts.errors import ArtifactError
from components.shared.serving.bundle import open_bundle
from tests.bundles import edit_json, make_inputs, resigned

_EARLY_EXIT = {
    "n_views": 5,
    "certain_from": None,
    "positive_from": None,
    "negative_to": None,
    "max_changed": 0.1,
    "delta": 0.1,
    "n_images": 1,
    "n_changed": 0,
    "changed_upper_bound": 0.0,
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundle")
    return make_inputs(root).export(root / "bundle")


def test_new_sums_over_the_same_files_are_accepted_under_the_same_digest(
    bundle: Path, tmp_path: Path
) -> None:
    path = resigned(bundle, tmp_path / "bundle", lambda out: None)
    digest = read_manifest(bundle).content_digest
    assert open_bundle(path, digest).policy == open_bundle(bundle, digest).policy


def test_a_bundle_that_somebody_changed_has_another_digest(bundle: Path, tmp_path: Path) -> None:
    digest = read_manifest(bundle).content_digest
    changed = resigned(
        bundle,
        tmp_path / "bundle",
        lambda out: edit_json(out / "policy.json", threshold=0.0, threshold_margin=-800.0),
    )
    assert open_bundle(changed).policy.threshold == 0
    found = read_manifest(changed).content_digest
    with pytest.raises(ArtifactError, match=f"its content digest is {found}, expected '{digest}'"):
        open_bundle(changed, digest)


def _text(name: str, text: str) -> Callable[[Path], object]:
    return lambda out: (out / name).write_bytes(text.encode("latin-1"))


def _preprocessing(**values: Any) -> Callable[[Path], object]:
    return lambda out: edit_json(out / "preprocessing.json", **values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_preprocessing(image_size="64"), "preprocessing.json: image_size"),
        (_preprocessing(image_size=0), "preprocessing.json: image_size"),
        (_preprocessing(image_size=64.5), "preprocessing.json: image_size"),
        (_preprocessing(image_size=100_000), "preprocessing.json: image_size"),
        (_preprocessing(image_std=[0, 0, 0]), "preprocessing.json: image_std"),
        (_preprocessing(image_mean=[0.5]), "preprocessing.json: image_mean"),
        (_preprocessing(image_mean=0.5), "preprocessing.json: image_mean"),
        (_preprocessing(image_mean=[float("nan")] * 3), "preprocessing.json: not valid JSON"),
        (_preprocessing(views={"a": 1}), "preprocessing.json: views"),
        (_preprocessing(views=[1]), "preprocessing.json: views"),
        (_text("preprocessing.json", "[]"), "preprocessing.json: must be a JSON object"),
        (_text("preprocessing.json", "{"), "preprocessing.json: not valid JSON"),
        (_text("preprocessing.json", "{}"), "preprocessing.json: image_size"),
        (_text("policy.json", "\xff"), "policy.json: not UTF-8"),
        (_text("policy.json", "[" * 100_000), "policy.json: nested deeper"),
        (_text("bundle.json", "[]"), "bundle.json: must be a JSON object"),
        (_text("bundle.json", "{}"), "bundle.json: files"),
        (_text("bundle.json", '{"files": 5, "stock_pipeline": true}'), "bundle.json: .*files"),
        (lambda out: edit_json(out / "bundle.json", stock_pipeline="x"), "stock_pipeline"),
        (lambda out: edit_json(out / "bundle.json", versions=[1]), "bundle.json: versions"),
        (lambda out: edit_json(out / "bundle.json", reference_logits="x"), "reference_logits"),
        (lambda out: edit_json(out / "bundle.json", name="x" * 2**25), "larger than"),
        (lambda out: (out / "early_exit.json").write_text("{"), "early_exit.json"),
        (
            lambda out: (out / "early_exit.json").write_text(json.dumps(_EARLY_EXIT)),
            "early_exit.json is for 5 views, the model uses 1",
        ),
        (
            lambda out: ((out / "x").mkdir(), (out / "x/policy.json").write_text("{}")),
            "must hold exactly one policy.json, holds policy.json, x/policy.json",
        ),
    ],
)
def test_documents_that_are_not_what_they_should_be_are_refused(
    change: Callable[[Path], object], message: str, bundle: Path, tmp_path: Path
) -> None:
    def apply(out: Path) -> None:
        change(out)

    path = resigned(bundle, tmp_path / "bundle", apply)
    with pytest.raises(ArtifactError, match=message) as caught:
        open_bundle(path)
    assert len(str(caught.value)) < 2000


def test_a_bundle_without_its_document_is_refused(bundle: Path, tmp_path: Path) -> None:
    from tests.golden.make import FOLDER

    assert open_bundle(FOLDER / "bundle").reference_logits is None
    path = resigned(bundle, tmp_path / "bundle", lambda out: None)
    (path / "bundle.json").unlink()
    with pytest.raises(ArtifactError, match=r"bundle.json: missing"):
        open_bundle(path)
