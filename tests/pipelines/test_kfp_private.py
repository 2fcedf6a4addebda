"""The private names of kfp are used with the version that they were read from, and no other."""

import re
from importlib import metadata
from pathlib import Path

import pytest

from components.shared.contracts.errors import ConfigError
from pipelines import kfp_private
from pipelines.sources import ROOT

# What kfp documents; everything else of it is in pipelines/kfp_private.py.
PUBLIC = {"kfp", "kfp.compiler", "kfp.dsl", "kfp.kubernetes", "kfp.local"}


def test_the_installed_version_is_the_one_that_was_read() -> None:
    kfp_private.require_version(metadata.version("kfp"))
    assert f"kfp=={kfp_private.VERSION}\n" in (ROOT / "constraints.txt").read_text()


def test_another_version_is_refused_in_one_line_with_what_to_do() -> None:
    with pytest.raises(ConfigError) as caught:
        kfp_private.require_version("2.18.0")
    assert str(caught.value) == (
        "kfp 2.18.0 is installed, and pipelines/kfp_private.py was read from kfp 2.17.0; pip"
        " install --constraint constraints.txt kfp, or read the names again"
    )


@pytest.mark.parametrize(
    "module",
    [file for file in sorted((ROOT / "pipelines").rglob("*.py")) if file.stem != "kfp_private"],
    ids=lambda file: file.relative_to(ROOT).as_posix(),
)
def test_no_other_module_names_what_is_private(module: Path) -> None:
    code = module.read_text(encoding="utf-8")
    imported = re.findall(r"^\s*(?:from|import) (kfp[\w.]*)(?: import (.*))?", code, re.MULTILINE)
    assert not [name for name, _ in imported if name.split(".")[0] == "kfp" and name not in PUBLIC]
    assert not re.search(r"\bclient\._|_client\._", code)
