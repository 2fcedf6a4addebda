"""The one place where weights become modules: pretrained models, adapters and single heads.

A folder is screened (`model_files`) before a library opens it; then transformers gets a
configuration made from checked values, reads safetensors of that folder only, and every weight of
the model must have come from it: transformers itself would draw missing ones at random.
"""

import copy
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    PreTrainedModel,
)
from transformers.utils import logging

from components.shared.contracts.errors import ArtifactError, PermanentError, one_line
from components.shared.contracts.listing import shown
from components.shared.model_files.folder import ModelFiles, screen, screen_adapter
from components.shared.model_files.reading import real_file
from components.shared.model_files.tensors import check_tensors
from components.shared.models.positions import cache_positions

_Shape = tuple[int, ...]

# What the libraries raise for files that they cannot use.
_LIBRARY_ERRORS = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
# A model that needs so many times the stored values is refused before it takes the memory.
_MOST_GROWTH = 2


def load_pretrained(
    folder: Path,
    where: str,
    *,
    classifies: bool = False,
    others: Collection[str] = (),
    optional: Collection[str] = (),
    ignored: Collection[str] = (),
    error: type[PermanentError] = ArtifactError,
) -> PreTrainedModel:
    """Return the model of a folder, in float32, in evaluation mode, on the CPU.

    No code of the folder runs, no other folder and no network is read, and standard input is not
    touched.

    Args:
        folder: Folder in Hugging Face's layout, with weights in safetensors.
        where: Which model it is, for messages.
        classifies: Load transformers' image classifier instead of the backbone.
        others: Names of entries that may be in the folder besides the model's files.
        optional: Last parts of names of weights that may be missing.
        ignored: First parts of names of weights that the model may lack.
        error: What to raise.

    Raises:
        PermanentError: of the class `error`: the folder is refused (`screen`), or a weight is
            missing, unexpected or of another shape.
    """
    files = screen(folder, where, others=others, error=error)
    auto_class = AutoModelForImageClassification if classifies else AutoModel
    arguments = _arguments(files, classifies)

    verbosity = logging.get_verbosity()
    # The library reports keys in tables of many lines; the error below names them in one.
    logging.set_verbosity(logging.CRITICAL)
    try:
        config = AutoConfig.for_model(**files.config)
        _check_size(auto_class, config, files, where, arguments, error)
        model, report = auto_class.from_pretrained(
            folder,
            config=config,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # listed in the report, and refused below
            **arguments,
        )
    except _LIBRARY_ERRORS as cause:
        raise error(
            f"{where} cannot be loaded: {shown(one_line(cause), 300)}; config.json and weights do"
            " not fit this version of transformers"
        ) from cause
    finally:
        logging.set_verbosity(verbosity)

    _check_report(report, where, optional, ignored, error)
    cache_positions(model)

    return model.eval()


def load_adapter(
    backbone: PreTrainedModel,
    folder: Path,
    where: str,
    *,
    error: type[PermanentError] = ArtifactError,
) -> PeftModel:
    """Return the backbone with the adapter of a folder that `save_adapter` wrote.

    Args:
        backbone: The backbone that the adapter was trained on; changed in place.
        folder: Folder with adapter_config.json and adapter_model.safetensors.
        where: Which adapter it is, for messages.
        error: What to raise.

    Raises:
        PermanentError: of the class `error`: another file is there, a key of the configuration is
            refused, or a weight is missing, unexpected, of another shape or not finite.
    """
    files = screen_adapter(folder, where, error=error)
    try:
        adapted = PeftModel.from_pretrained(backbone, folder, local_files_only=True)
    except _LIBRARY_ERRORS as cause:
        raise error(f"{where} cannot be loaded: {shown(one_line(cause), 300)}") from cause

    expected = {
        name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(adapted).items()
    }
    found = {name: tensor.shape for name, tensor in files.items()}
    _check_report(_compared(found, expected), where, error=error)

    return adapted


def read_tensors(
    file: Path,
    shapes: Mapping[str, Collection[int] | None],
    where: str,
    *,
    error: type[PermanentError] = ArtifactError,
) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file, which must be those of `shapes`.

    Args:
        file: The file.
        shapes: The expected shape of each tensor, by its name; None accepts any.
        where: The folder of the file, for messages.
        error: What to raise.

    Raises:
        PermanentError: of the class `error`: the file is missing or damaged, a tensor is missing,
            unexpected, of another shape, of another type than floating point, or not finite.
    """
    real = real_file(file.parent, file.name, where, error=error)
    stored = check_tensors(real, f"{where}: {file.name}", error=error)
    found = {name: tensor.shape for name, tensor in stored.items()}
    expected = {
        name: found.get(name, ()) if shape is None else tuple(shape)
        for name, shape in shapes.items()
    }
    _check_report(_compared(found, expected), f"{where}: {file.name}", error=error)

    try:
        return dict(load_file(real))
    except _LIBRARY_ERRORS as cause:
        raise error(f"{where}: {file.name} cannot be loaded: {one_line(cause)}") from cause


def load_weights(
    module: nn.Module,
    file: Path,
    where: str,
    *,
    names: Mapping[str, str] | None = None,
    error: type[PermanentError] = ArtifactError,
) -> None:
    """Load all weights of a module from a safetensors file.

    Args:
        module: The module, changed in place.
        file: The file.
        where: The folder of the file, for messages.
        names: Name in the file of each weight that has another one in the module.
        error: What to raise.

    Raises:
        PermanentError: of the class `error`, as `read_tensors`.
    """
    state = module.state_dict()
    in_file = {name: (names or {}).get(name, name) for name in state}
    shapes = {in_file[name]: tensor.shape for name, tensor in state.items()}
    tensors = read_tensors(file, shapes, where, error=error)
    module.load_state_dict({name: tensors[in_file[name]] for name in state})


def _arguments(files: ModelFiles, classifies: bool) -> dict[str, Any]:
    """Return further arguments of the model's class: no layer that nothing uses."""
    is_vit = files.config["model_type"] == "vit"
    return {"add_pooling_layer": False} if is_vit and not classifies else {}


def _check_size(
    auto_class: Any,
    config: Any,
    files: ModelFiles,
    where: str,
    arguments: Mapping[str, Any],
    error: type[PermanentError],
) -> None:
    """Refuse a model of far more weights than the files have, before it takes the memory."""
    with torch.device("meta"):
        model = auto_class.from_config(copy.deepcopy(config), trust_remote_code=False, **arguments)

    needed = sum(parameter.numel() for parameter in model.parameters())
    stored = sum(tensor.size for tensor in files.tensors.values())
    if needed > _MOST_GROWTH * stored:
        raise error(
            f"{where}: config.json describes a model of {needed:,} weights, the files have"
            f" {stored:,}; the two belong to different models"
        )


def _compared(found: Mapping[str, _Shape], expected: Mapping[str, _Shape]) -> dict[str, Any]:
    """Return the differences of two sets of shapes, as transformers reports them."""
    return {
        "missing_keys": expected.keys() - found.keys(),
        "unexpected_keys": found.keys() - expected.keys(),
        "mismatched_keys": [
            (name, found[name], expected[name])
            for name in expected.keys() & found.keys()
            if found[name] != expected[name]
        ],
    }


def _check_report(
    report: Mapping[str, Any],
    where: str,
    optional: Collection[str] = (),
    ignored: Collection[str] = (),
    error: type[PermanentError] = ArtifactError,
) -> None:
    """Refuse a model of which a weight is missing, left over, or of another shape."""
    missing = sorted(
        name for name in report["missing_keys"] if not name.endswith(tuple(optional) or ("\0",))
    )
    unexpected = sorted(
        name for name in report["unexpected_keys"] if not name.startswith(tuple(ignored) or ("\0",))
    )
    mismatched = sorted(report["mismatched_keys"])

    problems = []
    if missing:
        problems.append(f"lacks {len(missing)} weight(s), first {shown(missing[0])}")
    if unexpected:
        problems.append(
            f"has {len(unexpected)} weight(s) that the model lacks, first {shown(unexpected[0])}"
        )
    if mismatched:
        name, stored, expected = mismatched[0]
        problems.append(
            f"has {len(mismatched)} weight(s) of another shape, first {shown(name)} of"
            f" {tuple(stored)}, not {tuple(expected)}"
        )
    if problems:
        raise error(f"{where} {' and '.join(problems)}")
