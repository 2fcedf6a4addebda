"""Documents say what the code says: pictures and tables are compared with what generates them."""

import pytest
from google.protobuf import json_format

from components.configure.config import RunForm
from components.configure.recipes import NAMES
from pipelines.graph import critical_path, mermaid
from pipelines.parameters import Variant
from pipelines.resources import load_profile
from pipelines.sources import ROOT
from pipelines.stage1 import stage1

PIPELINE = (ROOT / "docs/pipeline.md").read_text(encoding="utf-8")


def _spec(variant: Variant) -> dict[str, object]:
    return json_format.MessageToDict(stage1(load_profile("a6000x2"), variant).pipeline_spec)


def form_table() -> str:
    """The run form as a table, in the order in which KFP shows it."""
    fields = sorted(RunForm.__dataclass_fields__.values(), key=lambda field: field.name)
    rows = [f"| `{field.name}` | {field.metadata['help']} |" for field in fields]
    return "\n".join(["| field | meaning |", "|---|---|", *rows])


def test_the_picture_of_the_graph_is_the_compiled_one() -> None:
    picture = mermaid(_spec(Variant("unlabelled", ("full", "lora"))))
    assert f"```mermaid\n{picture}```" in PIPELINE, picture


def test_the_form_is_documented_field_by_field() -> None:
    assert form_table() in PIPELINE, form_table()


def test_the_number_of_pods_is_the_default_graphs() -> None:
    path = critical_path(_spec(Variant()))
    assert f"has {path.pods} pods one after the other" in PIPELINE
    assert (
        f"({len(path.names)} steps of two pods, {path.driver_only} that only open a group)"
        in PIPELINE
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_named(name: str) -> None:
    assert f"`{name}`" in PIPELINE
