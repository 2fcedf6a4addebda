"""A bundle with new sums answers from its own, complete weights, or not at all."""

import json
import os
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from components.shared.contracts.errors import ConfigError, PermanentError
from components.shared.serving import bundle as bundle_module
from components.shared.serving.bundle import Bundle, open_bundle
from components.shared.serving.predictor import Predictor
from components.shared.vision.reference_image import reference_image
from tests.bundles import Inputs, edit_json, edit_weights, make_inputs, noise, resigned
from tests.standard_input import run_asked

ROOT = Path(__file__).resolve().parents[4]
WEIGHTS = "model/model.safetensors"
INDEX = "model/model.safetensors.index.json"
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def bundle(inputs: Inputs) -> Path:
    return inputs.export(inputs.root / "bundle")


def _config(**values: Any) -> Change:
    return lambda out: edit_json(out / "model/config.json", **values)


def _weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    return lambda out: edit_weights(out / WEIGHTS, change)


def _without(part: str) -> Change:
    return _weights(lambda tensors: {n: t for n, t in tensors.items() if part not in n})


def _code(out: Path) -> None:
    (out / "model/m.py").write_text(f"open({str(out / 'PWNED')!r}, 'w')\n")
    automap = {"AutoConfig": "m.C", "AutoModelForImageClassification": "m.M"}
    edit_json(out / "model/config.json", model_type="evil", auto_map=automap)


class _Evil:
    def __reduce__(self) -> Any:
        return open, ("PWNED", "w")


def _pickle(content: Any) -> Change:
    def change(out: Path) -> None:
        tensors = load_file(out / WEIGHTS)
        (out / WEIGHTS).unlink()
        torch.save(content or tensors, out / "model/pytorch_model.bin")

    return change


def _outside(name: str) -> Change:
    """Weights that lie outside the bundle, named by an index in it."""

    def change(out: Path) -> None:
        tensors = load_file(out / WEIGHTS)
        tensors["classifier.bias"] = torch.tensor([50.0, -50.0])
        save_file(tensors, out.parent / "outside.safetensors", metadata={"format": "pt"})
        (out / WEIGHTS).unlink()
        weight_map = dict.fromkeys(tensors, name)
        (out / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    return change


def _adapter(base: str) -> Change:
    def change(out: Path) -> None:
        document = {"base_model_name_or_path": base, "peft_type": "LORA", "r": 1}
        (out / "model/adapter_config.json").write_text(json.dumps(document))
        save_file({}, out / "model/adapter_model.safetensors", metadata={"format": "pt"})

    return change


HOSTILE: list[tuple[Change, str]] = [
    # Code, from the bundle and from the hub.
    (_code, "config.json has auto_map="),
    (lambda out: (out / "model/m.py").write_text("1"), "holds 'm.py', not a file of a model"),
    (_config(auto_map={"AutoConfig": "evil/repo--m.C"}), "config.json has auto_map="),
    (_config(model_type="evil", auto_map={"AutoConfig": "evil/repo--m.C"}), "has auto_map="),
    (_config(_attn_implementation="evil/kernel"), "has _attn_implementation='evil/kernel'"),
    (_config(attn_implementation="flash_attention_2"), "has attn_implementation="),
    (_config(quantization_config={"quant_method": "zzz"}), "has quantization_config="),
    (_config(dtype="os.system"), "config.json: dtype"),
    # Weights from elsewhere, and pickles.
    (_outside("../../outside.safetensors"), "must name .safetensors files beside it"),
    (_pickle(None), "has no model.safetensors, only pytorch_model.bin, which is never unpickled"),
    (_pickle({"x": _Evil()}), "which is never unpickled"),
    (_adapter("evil-org/evil-model"), "holds 'adapter_config.json', 'adapter_model.safetensors'"),
    (_adapter("/tmp"), "holds 'adapter_config.json'"),
    # Weights that are not all there.
    (_without("classifier"), r"lacks 2 weight\(s\), first 'classifier.bias'"),
    (_without("layer.1."), r"lacks 18 weight\(s\)"),
    (_without(""), "holds no tensor"),
    (_weights(lambda t: {n: v * float("nan") for n, v in t.items()}), "not finite in float32"),
    (_weights(lambda t: t.update(x=torch.zeros(1))), r"has 1 weight\(s\) that the model lacks"),
    (_config(num_hidden_layers=12), "lacks 180 weight|describes a model"),
    (_config(num_hidden_layers=1), "that the model lacks"),
    (_config(hidden_size=64), "of another shape|describes a model"),
    (_config(id2label={"0": "a", "1": "b", "2": "c"}, label2id=None), "another shape"),
    (_config(model_type="vit", architectures=["ViTForImageClassification"]), "lacks|describes"),
    # Damage.
    (lambda out: (out / "model/config.json").write_text("[]"), "must be a JSON object"),
    (lambda out: (out / "model/config.json").write_text("{"), "not valid JSON"),
    (lambda out: (out / WEIGHTS).write_bytes(b""), "is not a safetensors file"),
    (lambda out: (out / WEIGHTS).write_bytes(os.urandom(1000)), "is not a safetensors file"),
    (
        lambda out: (out / WEIGHTS).write_bytes(
            struct.pack("<Q", 90_000_000) + b"{" + b" " * 89_999_998 + b"}"
        ),
        "is not a safetensors file",
    ),
    (_config(patch_size=0), "config.json: patch_size"),
    (_config(hidden_act="zzz"), "config.json: hidden_act"),
    (_config(mlp_ratio=10**6), "config.json: mlp_ratio"),
    (lambda out: edit_json(out / "preprocessing.json", backbone_type="vit"), "is a 'dinov2' with"),
    (lambda out: edit_json(out / "bundle.json", stock_pipeline=False), "cannot be read"),
    (lambda out: edit_json(out / "preprocessing.json", image_size=5), "has 0 patches of 14 x 14"),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE)
def test_a_changed_bundle_with_new_sums_does_not_answer(
    change: Change,
    message: str,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = resigned(bundle, tmp_path / "copy/bundle", lambda out: (change(out), None)[1])
    with pytest.raises(PermanentError, match=message) as caught:
        Predictor(open_bundle(path))
    assert "\n" not in str(caught.value)
    assert str(path / "model") in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.rglob("PWNED"))


def test_shards_inside_the_bundle_answer_as_the_whole(bundle: Path, tmp_path: Path) -> None:
    def shard(out: Path) -> None:
        tensors = load_file(out / WEIGHTS)
        (out / WEIGHTS).unlink()
        names = sorted(tensors)
        for part in (0, 1):
            save_file(
                {name: tensors[name] for name in names[part::2]},
                out / f"model/m-{part}.safetensors",
                metadata={"format": "pt"},
            )
        weight_map = {name: f"m-{i % 2}.safetensors" for i, name in enumerate(names)}
        (out / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    path = resigned(bundle, tmp_path / "bundle", shard)
    pixels = noise(3)
    assert Predictor(open_bundle(path)).answers(pixels) == Predictor(open_bundle(bundle)).answers(
        pixels
    )


@pytest.mark.parametrize("answer", ["y\n" * 1000, None])
def test_predict_never_reads_standard_input(
    answer: str | None, bundle: Path, tmp_path: Path
) -> None:
    """Standard input says yes to everything, or stays open and silent."""
    path = resigned(bundle, tmp_path / "bundle", _code)
    command = [sys.executable, "-m", "components.shared.serving.predict", str(path), "photo.jpg"]
    ended = run_asked(command, answer, ROOT)

    assert (ended.returncode, ended.stdout) == (42, "")
    warning, error = ended.stderr.splitlines()
    assert warning.endswith("is not signed; its sums do not say who made it")
    assert "config.json has auto_map=" in error
    assert not (path / "PWNED").exists()


def test_the_reference_logits_are_those_of_the_model(bundle: Path) -> None:
    opened = open_bundle(bundle)
    logits = Predictor(opened).logits(reference_image(opened.spec.image_size))
    np.testing.assert_allclose(opened.reference_logits, logits[0], atol=1e-4)
    assert reference_image(1).shape == (1, 1, 1, 3)


def _of_other_versions(bundle: Path, path: Path, change: Change) -> Bundle:
    def apply(out: Path) -> None:
        versions = json.loads((out / "bundle.json").read_text())["versions"]
        edit_json(out / "bundle.json", versions=versions | {"transformers": "4.0.0"})
        change(out)

    return open_bundle(resigned(bundle, path, apply))


def test_other_versions_are_no_error_where_keys_and_numbers_agree(
    bundle: Path, tmp_path: Path
) -> None:
    opened = _of_other_versions(bundle, tmp_path / "bundle", lambda out: None)
    assert opened.version_differences().startswith("transformers ")
    assert Predictor(opened).answers(noise(2)) == Predictor(open_bundle(bundle)).answers(noise(2))
    assert open_bundle(bundle).version_differences() == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("classifier"), r"lacks 2 weight\(s\)"),
        (
            lambda out: edit_json(out / "bundle.json", reference_logits=[0.5, 9.5]),
            "the logits of the reference image differ by",
        ),
        (
            lambda out: edit_json(out / "bundle.json", reference_logits=[0.5]),
            "reference_logits has 1 numbers, the model has 2 classes",
        ),
    ],
)
def test_other_versions_are_the_reason_where_keys_or_numbers_differ(
    change: Change, message: str, bundle: Path, tmp_path: Path
) -> None:
    opened = _of_other_versions(bundle, tmp_path / "bundle", change)
    with pytest.raises(
        PermanentError,
        match=f"{message}.*other versions: transformers .* here, 4.0.0 at the export",
    ):
        Predictor(opened)


def test_a_library_that_is_not_installed_has_no_version_to_compare(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(package: str) -> str:
        raise bundle_module.PackageNotFoundError(package)

    monkeypatch.setattr(bundle_module, "version", version)
    assert open_bundle(bundle).version_differences() == ""


def test_a_gate_without_its_weights_is_refused(tmp_path: Path) -> None:
    from tests.components.export_bundle.test_policy_bundles import POLICIES

    policy = POLICIES["gate"]
    path = make_inputs(tmp_path, policy=policy).export(tmp_path / "bundle", policy="gate")
    Predictor(open_bundle(path))
    gate = "gate/gate.safetensors"
    changes: list[tuple[Change, str]] = [
        (lambda out: (out / gate).unlink(), "gate: gate.safetensors cannot be read"),
        (lambda out: edit_weights(out / gate, lambda t: {"out.bias": t["out.bias"]}), "lacks 5"),
        (lambda out: (out / "gate/gate.json").write_text('{"kind": "x"}'), "gate.json: kind"),
        (lambda out: shutil.rmtree(out / "gate"), "gate.json: cannot be read"),
    ]
    for number, (change, message) in enumerate(changes):
        changed = resigned(path, tmp_path / str(number), lambda out, change=change: change(out))
        with pytest.raises(PermanentError, match=message):
            Predictor(open_bundle(changed))


def test_a_device_that_is_not_there_is_an_error(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stands for a machine without a GPU.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("STREETVISION_DEVICE", "cuda")
    with pytest.raises(ConfigError, match="STREETVISION_DEVICE=cuda"):
        Predictor(open_bundle(bundle))


def test_autocast_around_the_predictor_does_not_change_its_answers(bundle: Path) -> None:
    predictor = Predictor(open_bundle(bundle))
    exact = predictor.logits(noise(2))
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(predictor.logits(noise(2)), exact)
