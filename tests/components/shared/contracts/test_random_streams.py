"""Streams are unique within a context, keep their values, and are named wherever they are used."""

import ast
from enum import IntEnum
from pathlib import Path

import numpy as np
import pytest

from components.shared.contracts import random_streams
from components.shared.contracts.random_streams import (
    CachedImageStream,
    ClassifierStream,
    DemoStream,
    DinoStream,
    DistilledHeadStream,
    DriftStream,
    GateStream,
    MaeStream,
    SampleOrderStream,
    SearchStream,
)

ROOT = Path(__file__).resolve().parents[4]
# Draws that share seeds and steps.
CONTEXTS: tuple[tuple[type[IntEnum], ...], ...] = (
    (ClassifierStream, CachedImageStream),
    (DistilledHeadStream, CachedImageStream),
    (GateStream, CachedImageStream),
    (SampleOrderStream,),
    (DinoStream,),
    (MaeStream,),
    (DemoStream,),
    (DriftStream,),
    (SearchStream,),
)
VALUES = {
    "CachedImageStream": {"CACHED_AUGMENTATION": 3, "CORRUPTION": 4},
    "ClassifierStream": {"DROPOUT": 0, "AUGMENTATION": 1, "CHOICE_OF_CACHED_AUGMENTATION": 2},
    "DistilledHeadStream": {"DROPOUT": 0},
    "DriftStream": {"FOLDS": 1, "LABEL_SHIFT": 2, "KEPT_GROUPS": 3},
    "SearchStream": {"SAMPLER": 0},
    "GateStream": {"DROPOUT": 0, "CHOICE_OF_CACHED_AUGMENTATION": 1},
    "SampleOrderStream": {"TRAINING": 0, "PROFIT_REFERENCE": 1},
    "DinoStream": {"MASKS": 1000},
    "MaeStream": {"CROP": 0, "PATCH_ORDER": 1},
    "DemoStream": {"DRIVE": 0, "PLACE": 1, "FRAME": 2, "PLAN": 4},
}


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda c: "+".join(e.__name__ for e in c))
def test_values_are_unique_within_a_context(context: tuple[type[IntEnum], ...]) -> None:
    # `__members__` also holds a second name of an equal value, which iteration leaves out.
    values = [int(member) for streams in context for member in streams.__members__.values()]
    assert len(set(values)) == len(values)


def test_values_are_those_that_weights_and_demo_images_were_made_with() -> None:
    found = {
        name: {member: int(value) for member, value in streams.__members__.items()}
        for name, streams in vars(random_streams).items()
        if isinstance(streams, type) and issubclass(streams, IntEnum) and streams is not IntEnum
    }
    assert found == VALUES
    assert {streams.__name__ for context in CONTEXTS for streams in context} == set(VALUES)


def test_a_member_seeds_as_its_number_does() -> None:
    expected = np.random.default_rng([3, 5, 4]).random(8)
    assert (np.random.default_rng([3, 5, CachedImageStream.CORRUPTION]).random(8) == expected).all()


def test_no_call_spells_a_stream() -> None:
    """Numbers as the last part of a key stand in the table only."""
    spelled = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for folder in ("components", "pipelines")
        for file in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.Call)
        if ast.unparse(node.func).rpartition(".")[2] in ("step_rng", "default_rng", "dropout_mask")
        for part in _parts(node)[1:]
        if isinstance(part, ast.Constant)
    ]
    assert not spelled


def _parts(call: ast.Call) -> list[ast.expr]:
    """Parts of the key, given as arguments or as one tuple or list."""
    if len(call.args) == 1 and isinstance(call.args[0], ast.Tuple | ast.List):
        return call.args[0].elts
    return call.args
