"""config.json of a model: the values that are handed on, and the keys that are refused.

transformers sets every key of the file as an attribute, and some of them make it import code,
download kernels, or read weights from elsewhere. So only the declared fields are handed on, and
what would change where code or weights come from is refused by its name. Other keys, which other
versions of transformers write, have no effect.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import Field

from components.shared.contracts.documents import as_type
from components.shared.contracts.errors import ArtifactError, PermanentError
from components.shared.contracts.listing import shown

SUPPORTED_TYPES = ("dinov2", "dinov2_with_registers", "dinov3_vit", "vit")

# Functions of transformers without parameters of their own.
ACTIVATIONS = (
    "gelu",
    "gelu_10",
    "gelu_accurate",
    "gelu_fast",
    "gelu_new",
    "gelu_python",
    "gelu_python_tanh",
    "gelu_pytorch_tanh",
    "hardswish",
    "laplace",
    "leaky_relu",
    "linear",
    "mish",
    "quick_gelu",
    "relu",
    "relu2",
    "relu6",
    "sigmoid",
    "silu",
    "sqrtsoftplus",
    "swish",
    "tanh",
)

_CODE = "names Python code to run with the model; models with code of their own are not supported"
_KERNEL = "selects a kernel, which may be downloaded and run"
_OTHER_MODEL = "refers to another model; every weight must be in this folder"
_QUANTISED = "describes quantised weights; use the model in float16, bfloat16 or float32"
_REFUSED = {
    "auto_map": _CODE,
    "custom_pipelines": _CODE,
    "custom_generate": _CODE,
    "megatron_config": _CODE,
    "attn_implementation": _KERNEL,
    "_attn_implementation": _KERNEL,
    "_attn_implementation_internal": _KERNEL,
    "experts_implementation": _KERNEL,
    "_experts_implementation": _KERNEL,
    "_experts_implementation_internal": _KERNEL,
    "kernel_config": _KERNEL,
    "use_kernels": _KERNEL,
    "fusion_config": _KERNEL,
    "quantization_config": _QUANTISED,
    "compression_config": _QUANTISED,
    "transformers_weights": _OTHER_MODEL,
    "base_model_name_or_path": _OTHER_MODEL,
    "backbone": _OTHER_MODEL,
    "backbone_config": _OTHER_MODEL,
    "backbone_kwargs": _OTHER_MODEL,
    "use_timm_backbone": _OTHER_MODEL,
    "use_pretrained_backbone": _OTHER_MODEL,
    "per_layer_config": "changes single layers; it is not supported",
    "distributed_config": "distributes the model over processes; it is not supported",
}
# Implementations of attention that are part of torch and transformers.
_PLAIN_ATTENTION = ("eager", "sdpa")

_Fraction = Annotated[float, Field(ge=0, le=1)]
_Dtype = Literal["float16", "bfloat16", "float32", "float64"]
_Side = Annotated[int, Field(ge=1, le=8192)]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Fields of config.json that transformers may see, of all supported families.

    The bounds are several times those of the largest published model of the families.
    """

    model_type: Literal[SUPPORTED_TYPES]  # type: ignore[valid-type]
    architectures: list[str] | None = None
    transformers_version: str | None = None
    dtype: _Dtype | None = None
    torch_dtype: _Dtype | None = None
    id2label: dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], str] | None = None
    label2id: dict[str, int | str] | None = None

    hidden_size: Annotated[int, Field(ge=1, le=16_384)] = 768
    num_hidden_layers: Annotated[int, Field(ge=1, le=256)] = 12
    num_attention_heads: Annotated[int, Field(ge=1, le=256)] = 12
    mlp_ratio: Annotated[int, Field(ge=1, le=64)] = 4
    intermediate_size: Annotated[int, Field(ge=1, le=131_072)] = 3072
    image_size: _Side | tuple[_Side, _Side] = 224
    patch_size: Annotated[int, Field(ge=1, le=1024)] = 16
    num_channels: Literal[3] = 3
    num_register_tokens: Annotated[int, Field(ge=0, le=1024)] = 4
    encoder_stride: Annotated[int, Field(ge=1, le=1024)] = 16
    pooler_output_size: Annotated[int, Field(ge=1, le=131_072)] | None = None

    hidden_act: Literal[ACTIVATIONS] = "gelu"  # type: ignore[valid-type]
    pooler_act: Literal[ACTIVATIONS] = "tanh"  # type: ignore[valid-type]
    hidden_dropout_prob: _Fraction = 0.0
    attention_probs_dropout_prob: _Fraction = 0.0
    attention_dropout: _Fraction = 0.0
    drop_path_rate: _Fraction = 0.0
    initializer_range: Annotated[float, Field(ge=0, le=100)] = 0.02
    layer_norm_eps: Annotated[float, Field(gt=0, le=1)] = 1e-6
    layerscale_value: float = 1.0
    rope_theta: Annotated[float, Field(gt=0)] = 100.0
    pos_embed_shift: float | None = None
    pos_embed_jitter: float | None = None
    pos_embed_rescale: float | None = 2.0

    qkv_bias: bool = True
    query_bias: bool = True
    key_bias: bool = False
    value_bias: bool = True
    proj_bias: bool = True
    mlp_bias: bool = True
    use_gated_mlp: bool = False
    use_swiglu_ffn: bool = False
    use_mask_token: bool = True
    apply_layernorm: bool = True
    reshape_hidden_states: bool = True


_FIELDS = [field.name for field in fields(ModelConfig)]


def checked_config(
    document: Any, where: str, *, error: type[PermanentError] = ArtifactError
) -> dict[str, Any]:
    """Return the fields of config.json that a library may see, with their values unchanged.

    Args:
        document: JSON value of the file.
        where: Which model it is of, for messages.
        error: What to raise.

    Raises:
        PermanentError: of the class `error`: a refused key, a value of another type or outside its
            range, or an unsupported architecture.
    """
    place = f"{where}: config.json"
    if not isinstance(document, Mapping):
        raise error(f"{place} must be a JSON object, not {shown(document, 60)}")

    refuse_keys(document, place, error=error)

    model_type = document.get("model_type")
    if model_type not in SUPPORTED_TYPES:
        raise error(f"{where} is a {shown(model_type)}, supported: {', '.join(SUPPORTED_TYPES)}")

    known = {name: document[name] for name in _FIELDS if name in document}
    config = as_type(known, ModelConfig, place, error=error)

    if config.hidden_size % config.num_attention_heads:
        raise error(
            f"{place}: hidden_size={config.hidden_size} must be a multiple of"
            f" num_attention_heads={config.num_attention_heads}"
        )

    return known


def refuse_keys(
    document: Mapping[str, Any], place: str, *, error: type[PermanentError] = ArtifactError
) -> None:
    """Raise `error` for a key that would run code, or read code or weights from elsewhere.

    Keys without a value (null, false, empty) have no effect and pass.
    """
    for name, value in document.items():
        if name not in _REFUSED or not value:
            continue
        if _REFUSED[name] is _KERNEL and value in _PLAIN_ATTENTION:
            continue
        raise error(
            f"{place} has {name}={shown(value, 60)}, which {_REFUSED[name]}; remove the key, or"
            " give a model without it"
        )
