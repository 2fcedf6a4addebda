"""Adapters: published arithmetic, identity at the start, merging, reloading."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import Linear as LoraLayer
from safetensors.torch import load_file
from torch import nn
from transformers import Dinov2Config, Dinov2Model, PreTrainedModel

from components.shared.contracts.errors import ConfigError
from components.shared.models import adapters
from components.shared.models.experimental.doran import DoranLinearLayer
from components.shared.vision.arithmetic import use_tf32

OTHERS = ("loha", "lokr", "vera", "randlora")
PIXELS = torch.linspace(-1, 1, 2 * 3 * 56 * 56).view(2, 3, 56, 56)


def backbone() -> PreTrainedModel:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=14,
        image_size=56,
        mlp_ratio=2,
    )
    return Dinov2Model(config).eval()


def moved(model: PreTrainedModel) -> PreTrainedModel:
    """Every trainable parameter away from its start, as training does it."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    return model


def features(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(pixel_values=PIXELS).last_hidden_state


@pytest.mark.parametrize("mode", [*adapters.LORA_VARIANTS, *OTHERS])
def test_an_adapter_starts_as_the_identity_and_merges_exactly(mode: str) -> None:
    before = features(backbone())
    model = adapters.prepare(backbone(), mode, rank=4, alpha=8.0)
    torch.testing.assert_close(features(model), before, rtol=0, atol=2e-5)
    after = features(moved(model))
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(features(adapters.merge(model, PIXELS)), after, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", [*adapters.LORA_VARIANTS])
def test_rank_one_trains_and_reloads_to_the_same_outputs(mode: str, tmp_path: Path) -> None:
    model = moved(adapters.prepare(backbone(), mode, rank=1, alpha=2.0))
    adapters.save_adapter(model, tmp_path)
    again = adapters.prepare(backbone(), mode, rank=1, alpha=2.0)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert stored.keys() == get_peft_model_state_dict(again).keys()
    assert set_peft_model_state_dict(again, stored).unexpected_keys == []
    torch.testing.assert_close(features(again), features(model), rtol=0, atol=1e-6)


def test_peft_itself_reloads_a_lora_adapter(tmp_path: Path) -> None:
    model = moved(adapters.prepare(backbone(), "dora", rank=2, alpha=4.0))
    adapters.save_adapter(model, tmp_path)
    torch.testing.assert_close(
        features(PeftModel.from_pretrained(backbone(), tmp_path)), features(model)
    )


class _OneLayer(nn.Module):
    """A linear layer by the name that adapters look for, W0 = [[1, 2], [3, 4]]."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(2, 2, bias=False)
        self.query.weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.query(x)


def _worked_example(mode: str, magnitude: tuple[float, float]) -> tuple[nn.Module, nn.Module]:
    model = adapters.prepare(_OneLayer(), mode, rank=1, alpha=2.0)  # type: ignore[arg-type]
    layer = model.base_model.model.query
    layer.lora_A["default"].weight.data = torch.tensor([[0.2, -0.4]])
    layer.lora_B["default"].weight.data = torch.tensor([[0.5], [-0.25]])
    layer.lora_magnitude_vector["default"].weight.data = torch.tensor(magnitude)
    return model, layer


def test_dora_computes_the_worked_example() -> None:
    start = adapters.prepare(_OneLayer(), "dora", rank=1, alpha=2.0)  # type: ignore[arg-type]
    magnitude = start.base_model.model.query.lora_magnitude_vector["default"].weight
    torch.testing.assert_close(magnitude.detach(), torch.tensor([2.2360679775, 5.0]))
    model, _ = _worked_example("dora", (2.0, 6.0))
    expected = torch.tensor([[-0.4, -1.5282371011]])
    torch.testing.assert_close(
        model(torch.tensor([[1.0, -1.0]])).detach(), expected, rtol=0, atol=1e-6
    )
    merged = model.merge_and_unload().query.weight.detach()
    torch.testing.assert_close(
        merged, torch.tensor([[1.2, 1.6], [3.4091443025, 4.9373814036]]), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("tau", "expected"),
    [
        (0.1, [[1.142857, 1.523810], [3.343633, 4.842503]]),
        (1.0, [[0.8, 1.066667], [2.850627, 4.128494]]),
    ],
)
def test_doran_computes_the_worked_example(tau: float, expected: list[list[float]]) -> None:
    model, layer = _worked_example("doran", (2.0, 6.0))
    layer.lora_magnitude_vector["default"].tau.data.fill_(tau)
    x = torch.eye(2)
    torch.testing.assert_close(model(x).detach().T, torch.tensor(expected), rtol=0, atol=2e-6)
    torch.testing.assert_close(
        model.merge_and_unload().query.weight.detach(), torch.tensor(expected), rtol=0, atol=2e-6
    )


def test_dorans_tau_learns() -> None:
    model = adapters.prepare(backbone(), "doran", rank=2, alpha=4.0)
    model(pixel_values=PIXELS).last_hidden_state.square().sum().backward()
    taus = [module.tau for module in model.modules() if isinstance(module, DoranLinearLayer)]
    assert len(taus) == 4
    assert all(tau.grad is not None and tau.grad != 0 for tau in taus)


def test_options_that_peft_refuses_are_named() -> None:
    with pytest.raises(ConfigError, match=r"mode=.lora. with adapter_options=.*rang"):
        adapters.prepare(backbone(), "lora", rank=1, alpha=1.0, options={"rang": 3})


def test_a_merge_is_computed_without_tensorfloat32(monkeypatch: pytest.MonkeyPatch) -> None:
    model = moved(adapters.prepare(backbone(), "lora", rank=2, alpha=4.0))
    settings: list[bool] = []
    real = LoraLayer.get_delta_weight

    def recorded(layer: LoraLayer, name: str) -> torch.Tensor:
        settings.append(torch.backends.cuda.matmul.allow_tf32)
        return real(layer, name)

    monkeypatch.setattr(LoraLayer, "get_delta_weight", recorded)
    use_tf32(True)
    try:
        adapters.merge(model, torch.zeros(1, 3, 56, 56))
    finally:
        use_tf32(False)
    assert settings
    assert not any(settings)
