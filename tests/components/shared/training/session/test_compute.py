"""Settings of the computation, as a rank resolves them for its device."""

import importlib.util
import shutil
from collections.abc import Iterator
from importlib.machinery import ModuleSpec

import pytest
import torch

from components.predict_logits.config import PredictLogitsConfig
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.options import ComputeConfig, LoopConfig
from components.shared.training.session.compute import (
    prepare_computation,
    refused_by_determinism,
    resolved,
    shown_computation,
)
from components.shared.vision.arithmetic import use_tf32
from components.train_baseline.config import TrainBaselineConfig
from components.train_gate.config import TrainGateConfig

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    """Stand for a GPU: the answers that PyTorch gives of its compute capability."""

    def has_bf16(including_emulation: bool = True) -> bool:
        return including_emulation or capability >= (8, 0)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", has_bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)


@pytest.fixture
def switches() -> Iterator[None]:
    yield
    use_tf32(False)
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("kind", [TrainBaselineConfig, TrainGateConfig, LoopConfig])
def test_auto_is_exact_and_deterministic_on_a_cpu(kind: type[ComputeConfig]) -> None:
    found = resolved(kind(), CPU)
    assert (found.precision, found.deterministic) == ("fp32", True)


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "fp32"), ((8, 6), "bf16"), ((9, 0), "bf16")]
)
def test_auto_on_a_gpu_is_bfloat16_where_it_has_that(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    gpu(monkeypatch, capability)
    found = resolved(TrainBaselineConfig(), GPU)
    assert (found.precision, found.deterministic) == (precision, False)


def test_predictions_for_certificates_keep_the_precision_of_the_predictor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu(monkeypatch, (8, 6))
    assert resolved(PredictLogitsConfig(), GPU).precision == "fp32"
    assert resolved(PredictLogitsConfig(precision="auto"), GPU).precision == "bf16"


def test_what_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, (8, 6))
    found = resolved(TrainBaselineConfig(precision="tf32", deterministic=True), GPU)
    assert (found.precision, found.deterministic) == ("tf32", True)


@pytest.mark.parametrize(
    ("changes", "device", "message"),
    [
        ({"precision": "tf32"}, CPU, "precision='tf32' needs a GPU"),
        ({"precision": "tf32"}, GPU, "precision='tf32' needs a GPU"),
        ({"precision": "bf16"}, GPU, "precision='bf16' is not supported by this GPU; use fp32"),
        ({"attention": "flash"}, CPU, "attention='flash' needs a GPU and precision=bf16; use sdpa"),
        ({"compile": "default"}, CPU, "compile='default' needs a C compiler"),
    ],
)
def test_what_the_device_cannot_do_is_refused(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], device: torch.device, message: str
) -> None:
    gpu(monkeypatch, (7, 5))
    # Stands for an image without a compiler.
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match=message):
        resolved(ComputeConfig.from_mapping(changes), device)


def test_flash_attention_needs_its_package_and_nothing_is_downloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu(monkeypatch, (8, 6))
    config = ComputeConfig(attention="flash")
    with pytest.raises(ConfigError, match="needs the package flash-attn"):
        resolved(config, GPU)

    # Stands for an installation with the package.
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None))
    assert resolved(config, GPU).attention == "flash"


def test_the_switches_of_pytorch_follow(switches: None) -> None:
    prepare_computation(ComputeConfig(precision="tf32", deterministic=True))
    assert torch.backends.cuda.matmul.allow_tf32
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory

    prepare_computation(ComputeConfig(precision="fp32", deterministic=False))
    assert not torch.backends.cuda.matmul.allow_tf32
    # By PyTorch's default, convolutions of fp32 tensors are not exact on a GPU.
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_a_deterministic_form_is_an_error_of_the_configuration(
    switches: None,
) -> None:
    prepare_computation(ComputeConfig(deterministic=True))
    # PyTorch's own refusal, which is of a CPU's operation here.
    with pytest.raises(RuntimeError) as refused:
        torch.zeros(2).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)
    found = refused_by_determinism(refused.value)
    assert found is not None
    assert "deterministic=true: put_ has no deterministic form" in str(found)
    assert refused_by_determinism(RuntimeError("out of memory")) is None


def test_the_log_says_how_it_computes() -> None:
    assert shown_computation(resolved(TrainBaselineConfig(), CPU), CPU) == (
        "computing on CPU: precision=fp32, deterministic=true, attention=sdpa, compile=off,"
        " gradient_checkpointing=false"
    )
