"""Only declared values of config.json reach transformers; what would run code is refused."""

import dataclasses
import json
from typing import Any

import pytest
from transformers import AutoConfig
from transformers.activations import ACT2CLS
from transformers.configuration_utils import PreTrainedConfig

from components.shared.contracts.errors import ArtifactError, DataError
from components.shared.model_files.model_config import (
    ACTIVATIONS,
    SUPPORTED_TYPES,
    ModelConfig,
    checked_config,
)
from tests.components.shared.models.families import FAMILIES, small

# Fields of transformers' classes that only other tasks use.
_UNUSED = {
    "output_hidden_states",
    "return_dict",
    "chunk_size_feed_forward",
    "is_encoder_decoder",
    "problem_type",
}


def _config(**values: Any) -> dict[str, Any]:
    return {"model_type": "dinov2", "hidden_size": 32, "num_attention_heads": 2} | values


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stored_configuration_passes_and_gives_the_same_one(family: str) -> None:
    config = small(family).config
    known = checked_config(json.loads(config.to_json_string(use_diff=False)), "model")
    assert AutoConfig.for_model(**known).to_dict() == config.to_dict()


@pytest.mark.parametrize("family", SUPPORTED_TYPES)
def test_every_field_of_a_family_is_declared_or_known_to_be_unused(family: str) -> None:
    fields = {field.name for field in dataclasses.fields(type(AutoConfig.for_model(family)))}
    assert type(AutoConfig.for_model(family)).__mro__[-1] is object
    assert issubclass(type(AutoConfig.for_model(family)), PreTrainedConfig)
    declared = {field.name for field in dataclasses.fields(ModelConfig)}
    assert {name for name in fields if not name.startswith("_")} - declared == _UNUSED


def test_every_activation_is_one_of_transformers_without_weights() -> None:
    assert set(ACTIVATIONS) == set(ACT2CLS) - {"prelu", "xielu"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_map", {"AutoConfig": "evil/repo--m.C"}),
        ("custom_pipelines", {"x": {}}),
        ("_attn_implementation", "flash_attention_2"),
        ("_attn_implementation", "evil/kernel"),
        ("attn_implementation", "evil/kernel"),
        ("attn_implementation", {"": "evil/kernel"}),
        ("_experts_implementation", "x"),
        ("quantization_config", {"quant_method": "bitsandbytes"}),
        ("transformers_weights", "other.bin"),
        ("backbone_config", {"model_type": "timm_backbone"}),
        ("fusion_config", {"patch_embeddings": True}),
        ("per_layer_config", {"0": {}}),
    ],
)
def test_keys_that_run_code_or_lead_elsewhere_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ArtifactError, match=rf"^model: config.json has {key}=.*; remove the key"):
        checked_config(_config(**{key: value}), "model")


@pytest.mark.parametrize("key", ["_attn_implementation", "auto_map", "quantization_config"])
def test_keys_without_a_value_pass(key: str) -> None:
    assert key not in checked_config(_config(**{key: None}), "model")
    assert checked_config(_config(_attn_implementation="sdpa"), "model") == _config()


def test_other_keys_do_not_reach_the_library() -> None:
    hostile = _config(_name_or_path="evil/repo", to_dict=5, __class__="x", generate=[1])
    assert checked_config(hostile, "model") == _config()


@pytest.mark.parametrize(
    "values",
    [
        {"hidden_size": "64"},
        {"hidden_size": -64},
        {"hidden_size": 10**6},
        {"hidden_size": True},
        {"num_hidden_layers": 20_000},
        {"num_attention_heads": 0},
        {"num_attention_heads": 5},
        {"patch_size": 0},
        {"patch_size": [14, 14]},
        {"image_size": 0},
        {"image_size": [0, 4]},
        {"num_channels": 4},
        {"mlp_ratio": 10**6},
        {"mlp_ratio": 2.5},
        {"num_register_tokens": -1},
        {"hidden_act": "zzz"},
        {"hidden_act": ["gelu"]},
        {"dtype": "os.system"},
        {"torch_dtype": "int8"},
        {"layer_norm_eps": 0},
        {"layer_norm_eps": 10**400},
        {"drop_path_rate": 2},
        {"id2label": {"x": "a"}},
        {"id2label": ["a"]},
        {"qkv_bias": "yes"},
        {"architectures": "m"},
    ],
)
def test_values_of_other_types_or_sizes_are_refused_with_their_key(values: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=f"^model: config.json: .*{next(iter(values))}") as caught:
        checked_config(_config(**values), "model", error=DataError)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("document", [[], None, 5, "x", [{}]])
def test_other_documents_are_refused(document: Any) -> None:
    with pytest.raises(ArtifactError, match="must be a JSON object"):
        checked_config(document, "model")


@pytest.mark.parametrize("kind", ["bert", None, ["dinov2"], {"a": 1}, "evil" * 10_000])
def test_other_architectures_are_refused_by_name(kind: Any) -> None:
    with pytest.raises(ArtifactError, match=r"model is a .*, supported: dinov2, ") as caught:
        checked_config({"model_type": kind}, "model")
    assert len(str(caught.value)) < 1000
