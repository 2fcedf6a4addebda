"""Weights become modules whole or not at all, without code, pickles, network or other folders."""

import json
import os
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Dinov2Config, Dinov2ForImageClassification

from components.shared.contracts.errors import ArtifactError, DataError
from components.shared.models.backbone import load_backbone
from components.shared.models.loading import load_adapter, load_pretrained, load_weights
from tests.bundles import edit_json, edit_weights
from tests.components.conftest import write_backbone
from tests.components.shared.models.families import FAMILIES, small
from tests.standard_input import run_asked

ROOT = Path(__file__).resolve().parents[4]
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_backbone(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_is_the_stored_one(family: str, tmp_path: Path) -> None:
    model = small(family)
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path, "model", ignored=["pooler."])
    assert not loaded.training
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precision_are_loaded_in_float32(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    small("dinov2").to(dtype).save_pretrained(tmp_path)
    assert {p.dtype for p in load_backbone(tmp_path).parameters()} == {torch.float32}


def test_the_callers_random_numbers_are_untouched(folder: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_backbone(folder)
    assert torch.equal(torch.rand(3), expected)


def test_a_classifier_gives_its_backbone_and_only_that(tmp_path: Path) -> None:
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2)
    model = Dinov2ForImageClassification(config)
    model.save_pretrained(tmp_path)
    loaded = load_backbone(tmp_path)
    assert torch.equal(loaded.layernorm.weight, model.dinov2.layernorm.weight)


def _drop(part: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda tensors: {name: t for name, t in tensors.items() if part not in name}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: edit_weights(f / WEIGHTS, _drop("layernorm")),
            r"lacks 2 weight\(s\), first 'la",
        ),
        (lambda f: edit_weights(f / WEIGHTS, _drop("layer.1.")), r"lacks 18 weight\(s\)"),
        (
            lambda f: edit_weights(f / WEIGHTS, lambda t: t.update({"evil.x": torch.zeros(3)})),
            r"has 1 weight\(s\) that the model lacks, first 'evil.x'",
        ),
        (
            lambda f: edit_weights(
                f / WEIGHTS, lambda t: t.update({"layernorm.weight": torch.zeros(3)})
            ),
            r"has 1 weight\(s\) of another shape, first 'layernorm.weight' of \(3,\), not \(32,\)",
        ),
        (lambda f: edit_json(f / "config.json", num_hidden_layers=4), r"lacks 36 weight\(s\)"),
        (lambda f: edit_json(f / "config.json", num_hidden_layers=1), "that the model lacks"),
        (lambda f: edit_json(f / "config.json", hidden_size=64), "of another shape|describes"),
        (
            lambda f: edit_json(f / "config.json", hidden_size=16_384, image_size=8192),
            "config.json describes a model of [0-9,]+ weights, the files have",
        ),
        (lambda f: edit_json(f / "config.json", model_type="vit"), "describes a model of"),
    ],
)
def test_a_model_with_other_weights_is_refused_and_never_drawn_at_random(
    damage: Callable[[Path], object], message: str, folder: Path
) -> None:
    damage(folder)
    with pytest.raises(DataError, match=message) as caught:
        load_backbone(folder)
    assert "\n" not in str(caught.value)


def test_nothing_is_printed_about_a_refused_model(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    edit_weights(folder / WEIGHTS, _drop("layer.1."))
    with pytest.raises(DataError):
        load_backbone(folder)
    assert capfd.readouterr() == ("", "")


def test_weights_that_training_cannot_use_are_refused_before_it(folder: Path) -> None:
    edit_weights(folder / WEIGHTS, lambda t: {n: v * float("nan") for n, v in t.items()})
    with pytest.raises(DataError, match="not finite in float32"):
        load_backbone(folder)
    edit_weights(folder / WEIGHTS, lambda t: {n: v.to(torch.int32) for n, v in t.items()})
    with pytest.raises(DataError, match="weights must be floating point"):
        load_backbone(folder)


def test_single_layers_load_whole_or_not_at_all(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    layer, file = nn.Linear(3, 2), tmp_path / "head.safetensors"
    save_file(layer.state_dict(), file)
    other = nn.Linear(3, 2)
    load_weights(other, file, "classifier")
    assert torch.equal(other.weight, layer.weight)
    with pytest.raises(ArtifactError, match=r"^classifier: head.safetensors has .* another shape"):
        load_weights(nn.Linear(4, 2), file, "classifier")
    with pytest.raises(ArtifactError, match=r"^classifier: head.safetensors has 1 .* lacks, first"):
        load_weights(nn.Linear(3, 2, bias=False), file, "classifier")
    edit_weights(file, lambda t: {"weight": t["weight"]})
    with pytest.raises(ArtifactError, match=r"lacks 1 weight\(s\), first 'bias'"):
        load_weights(other, file, "classifier")
    file.unlink()
    with pytest.raises(ArtifactError, match=r"^classifier: head.safetensors cannot be read"):
        load_weights(other, file, "classifier")


def test_an_adapter_with_other_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    from components.shared.models.adapters import prepare, save_adapter

    adapted = prepare(load_backbone(folder), "lora", rank=2, alpha=4)
    save_adapter(adapted, tmp_path / "adapter")
    loaded = load_adapter(load_backbone(folder), tmp_path / "adapter", "adapter")
    assert torch.equal(
        loaded(torch.ones(1, 3, 56, 56))[0], adapted.eval()(torch.ones(1, 3, 56, 56))[0]
    )
    edit_weights(tmp_path / "adapter/adapter_model.safetensors", _drop("layer.1."))
    with pytest.raises(ArtifactError, match=r"^adapter lacks \d weight\(s\)"):
        load_adapter(load_backbone(folder), tmp_path / "adapter", "adapter")


class _Hub(BaseHTTPRequestHandler):
    """A hub that has code for every model, and notes who asks."""

    requests: list[str] = []  # noqa: RUF012 - of the one server of a test

    def do_GET(self) -> None:
        self.requests.append(self.path)
        code = b"open('PWNED', 'w')\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(code)))
        self.end_headers()
        self.wfile.write(code)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("answer", ["y\n" * 1000, None])
@pytest.mark.parametrize(
    "auto_map",
    [
        {"AutoConfig": "m.C", "AutoModel": "m.M"},
        {"AutoConfig": "evil/repo--m.C", "AutoModel": "evil/repo--m.M"},
    ],
)
def test_code_is_neither_run_nor_fetched_and_nobody_is_asked(
    folder: Path, tmp_path: Path, auto_map: dict[str, Any], answer: str | None
) -> None:
    """Standard input says yes to everything, or stays open and silent."""
    edit_json(folder / "config.json", model_type="evil", auto_map=auto_map)
    hub = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    _Hub.requests.clear()
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    program = (
        "from pathlib import Path\n"
        "from components.shared.models.backbone import load_backbone\n"
        f"load_backbone(Path({str(folder)!r}))\n"
    )
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": "hf_SECRET",
    }
    try:
        ended = run_asked([sys.executable, "-c", program], answer, tmp_path, environment)
    finally:
        hub.shutdown()
        hub.server_close()

    assert "config.json has auto_map=" in ended.stderr
    assert (ended.stdout, _Hub.requests) == ("", [])
    assert not list(tmp_path.rglob("PWNED"))


def test_a_file_of_code_in_the_folder_is_refused(folder: Path) -> None:
    (folder / "m.py").write_text("open('PWNED', 'w')")
    with pytest.raises(DataError, match=r"holds 'm.py', not a file of a model"):
        load_backbone(folder)


def test_names_of_other_repositories_have_no_effect(folder: Path) -> None:
    edit_json(folder / "config.json", _name_or_path="evil/repo", name_or_path="evil/repo")
    loaded = load_backbone(folder)
    assert "evil" not in json.dumps(loaded.config.to_dict())
