"""The table of environment variables holds every name that code, images and manifests use."""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

from components.shared.contracts.environment import S3_VARIABLES, Variable

ROOT = Path(__file__).resolve().parents[4]
TABLE = ROOT / "components/shared/contracts/environment.py"
SOURCES = sorted(
    file
    for folder in ("components", "pipelines")
    for file in (ROOT / folder).rglob("*.py")
    if file != TABLE
)
EVERYBODYS = {"PATH", "HOME", "USER", "CC", "CXX"}
# Of MinIO's set-up job, a shell script that no code of ours reads.
OF_THE_STORES_JOB = {
    "STREETVISION_CREDENTIALS",
    "STREETVISION_MINIO_URL",
    "STREETVISION_RETRY_SECONDS",
}
# A variable of the project, or one with an underscore, is told from a word by its name alone.
_NAME = re.compile(r"\bSTREETVISION_\w+|" + "|".join(rf"\b{v}\b" for v in Variable if "_" in v))


def test_a_member_is_the_name_and_has_meaning_reader_and_default() -> None:
    assert Variable.CHECKPOINTS == "STREETVISION_CHECKPOINTS"
    assert f"{Variable.HUB_TOKEN}" == "HF_TOKEN"
    assert {Variable.S3_REGION: 1}["STREETVISION_S3_REGION"] == 1
    for variable in Variable:
        assert variable.meaning.rstrip().endswith("."), variable
        assert variable.reader, variable
        assert variable.default, variable


def test_names_are_unique_and_the_stores_are_eight() -> None:
    assert len(set(Variable)) == len(Variable.__members__)
    assert len(S3_VARIABLES) == 8


def test_no_module_spells_a_variables_name() -> None:
    spelled = [
        f"{file.relative_to(ROOT)}:{node.lineno}: {name}"
        for file in SOURCES
        for node in _strings(ast.parse(file.read_bytes()))
        for name in _NAME.findall(node.value)
        if name != "STREETVISION_S3_"  # the group's name, in prose
    ]
    assert not spelled, "take it from components.shared.contracts.environment"


def test_the_environment_is_asked_by_names_of_the_table() -> None:
    literals = [
        f"{file.relative_to(ROOT)}:{key.lineno}: {key.value}"
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_bytes()))
        for key in _keys(node)
        if isinstance(key, ast.Constant) and key.value not in EVERYBODYS
    ]
    assert not literals


def test_manifests_and_images_use_names_of_the_table() -> None:
    files = [
        file
        for folder in ("manifests", "images")
        for file in (ROOT / folder).rglob("*")
        if file.is_file()
    ]
    used = {
        name
        for file in files
        for name in re.findall(r"\b(?:STREETVISION|HF)_[A-Z0-9_]+", file.read_text("utf-8"))
    }
    dockerfile = (ROOT / "images/Dockerfile").read_text("utf-8")
    block = re.search(r"^ENV ((?:.*\\\n)*.*)", dockerfile, re.MULTILINE)
    assert block is not None
    used |= set(re.findall(r"\b([A-Z_]+)=", block[1]))
    assert {"STREETVISION_S3_ENDPOINT", "HF_TOKEN", "MPLCONFIGDIR"} <= used, "the search finds them"
    assert used - EVERYBODYS - OF_THE_STORES_JOB <= set(Variable)


def test_every_variable_has_a_user() -> None:
    """A name that nothing sets or reads has no place in the table."""
    texts = "\n".join(file.read_text("utf-8") for file in SOURCES)
    texts += (ROOT / "images/Dockerfile").read_text("utf-8")
    unused = [
        variable.name
        for variable in Variable
        if f"Variable.{variable.name}" not in texts and variable not in texts
    ]
    assert not unused


def test_the_search_finds_a_spelled_name() -> None:
    tree = ast.parse('"""STREETVISION_IN_PROSE"""\nname = "set STREETVISION_S3_REGION"\n')
    assert [_NAME.findall(node.value) for node in _strings(tree)] == [["STREETVISION_S3_REGION"]]
    tree = ast.parse(f'os.environ.get("A"); os.environ["B"]; "{os.sep}"; "C" in os.environ')
    found = {key.value for node in ast.walk(tree) for key in _keys(node)}  # type: ignore[attr-defined]
    assert found == {"A", "B", "C"}


def _strings(tree: ast.AST) -> Iterator[ast.Constant]:
    """String constants that are no docstrings."""
    prose = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            yield node


def _keys(node: ast.AST) -> Iterator[ast.expr]:
    """By which `os.environ` is indexed, asked or searched at this node."""
    if isinstance(node, ast.Subscript) and _is_environ(node.value):
        yield node.slice
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        asked = _is_environ(node.func.value) and node.func.attr in ("get", "setdefault", "pop")
        if asked or ast.unparse(node.func) == "os.getenv":
            yield node.args[0]
    if isinstance(node, ast.Compare) and any(_is_environ(c) for c in node.comparators):
        yield node.left


def _is_environ(node: ast.expr) -> bool:
    return ast.unparse(node) == "os.environ"
