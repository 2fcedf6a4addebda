"""Names of images: what changes which, and whether the sources that go in are all that a phase
needs.
"""

import ast
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from google.protobuf import json_format
from packaging.utils import canonicalize_name

from components.shared.contracts.errors import ConfigError
from pipelines.images import PhaseImage, all_images, write_context
from pipelines.parameters import STANDALONE
from pipelines.resources import load_profile
from pipelines.sources import ROOT, SERVER, phase_sources, reference, registry_of
from pipelines.stage1 import stage1

IMAGES = all_images()
TRAINERS = {image.phase for image in IMAGES if image.kind == "trainer"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what images are made of."""
    for name in ("components", "images", "locks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("constraints.txt", "requirements-dev.txt", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def _changed(tree: Path, file: str) -> set[str]:
    """The phases whose image gets another name when `file` gets one more line."""
    before = {image.phase: reference(image.kind, image.phase, tree) for image in IMAGES}
    with (tree / file).open("a") as stream:
        stream.write("\n# one more line\n")
    return {
        image.phase
        for image in IMAGES
        if reference(image.kind, image.phase, tree) != before[image.phase]
    }


@pytest.mark.parametrize("phase", [image.phase for image in IMAGES if image.phase != SERVER])
def test_a_change_in_a_phase_changes_its_image_and_no_other(tree: Path, phase: str) -> None:
    assert _changed(tree, f"components/{phase}/step.py") == {phase}
    # `configure`, which is never cached, resolves the options of all phases of a run.
    resolving = set() if phase in STANDALONE else {"configure"}
    assert _changed(tree, f"components/{phase}/config.py") == {phase, *resolving}


def test_a_recipe_is_part_of_the_image_that_reads_it(tree: Path) -> None:
    assert _changed(tree, "components/configure/recipes/demo.yaml") == {"configure"}


def test_templates_are_part_of_the_images_that_render_them(tree: Path) -> None:
    for name in ("report.html.jinja", "macros.html.jinja", "style.css"):
        assert _changed(tree, f"components/evaluate/report/templates/{name}") == {"evaluate"}
    card = "components/export_bundle/templates/model_card.md.jinja"
    assert _changed(tree, card) == {"export_bundle"}


def test_a_change_that_no_step_can_reach_changes_no_image(tree: Path) -> None:
    assert _changed(tree, "README.md") == set()
    assert _changed(tree, "images/engine.sh") == set()
    assert _changed(tree, "components/fit_threshold/README.md") == set()
    (tree / "components/shared/stats/unused.py").write_text("nothing = None\n")
    assert _changed(tree, "components/shared/stats/unused.py") == set()


def test_pages_for_readers_are_in_no_image() -> None:
    for image in IMAGES:
        assert not [file for file in phase_sources(image.phase) if file.suffix == ".md"]


def test_a_change_in_shared_code_changes_the_images_of_those_that_use_it(tree: Path) -> None:
    everyone = {image.phase for image in IMAGES}
    assert _changed(tree, "components/shared/contracts/errors.py") == everyone
    assert "fit_threshold" in _changed(tree, "components/shared/policies/fitting/sweep.py")
    assert "split_dataset" not in _changed(tree, "components/shared/policies/fitting/sweep.py")
    assert _changed(tree, "components/shared/training/session/fit.py") <= TRAINERS
    assert _changed(tree, "images/Dockerfile") == everyone


def test_a_lock_changes_the_images_that_are_installed_from_it_and_no_other(tree: Path) -> None:
    for name in ("image-trainer", "torch", "cuda"):
        assert _changed(tree, f"locks/{name}.txt") == TRAINERS
    assert _changed(tree, "locks/image-server.txt") == {SERVER}
    light = {image.phase for image in IMAGES if image.kind == "cpu"}
    assert _changed(tree, "locks/image-cpu.txt") == light
    assert _changed(tree, "locks/installer.txt") == {image.phase for image in IMAGES}
    for name in ("locks/run.txt", "locks/test.txt", "constraints.txt", "requirements-dev.txt"):
        assert _changed(tree, name) == set()


def test_what_torchrun_starts_by_name_is_in_the_image() -> None:
    names = {file.relative_to(ROOT).as_posix() for file in phase_sources("train_baseline")}
    assert {
        "components/train_baseline/train.py",
        "components/shared/training/classifier/tasks.py",
    } <= names


_LIBRARIES = {
    "cpu": ["kfp", "matplotlib", "minio", "pyarrow.parquet", "scipy.stats", "sklearn.linear_model"],
    "server": ["kserve", "minio", "onnxruntime"],
    "trainer": ["kfp", "peft", "scipy.stats", "torch", "transformers"],
}
# Imports all modules of each context in a process that is forked from one with the libraries, of
# which the import takes seconds, and nothing of ours. A failure is in the context's log.
_IMPORT_ALL = """
import importlib, os, pathlib, sys
folder, kind, *libraries = sys.argv[1:]
for name in libraries:
    importlib.import_module(name)
for app in sorted(path for path in pathlib.Path(folder).iterdir() if path.is_dir()):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    os.dup2(os.open(app.with_suffix(".log"), os.O_CREAT | os.O_WRONLY), 2)
    sys.path.insert(0, str(app))
    for file in sorted(app.rglob("*.py")):
        name = ".".join(file.relative_to(app).with_suffix("").parts)
        importlib.import_module(name.removesuffix(".__init__"))
    torch = {"torch", "transformers", "peft"} & set(sys.modules)
    assert kind == "trainer" or not torch, "a light step imports torch"
    app.with_suffix(".imported").touch()
    sys.stderr.flush()
    os._exit(0)
"""


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the contexts of all images, and import what they hold."""
    root = tmp_path_factory.mktemp("contexts")
    for kind, libraries in _LIBRARIES.items():
        (root / kind).mkdir()
        write_context(root / kind, [image for image in IMAGES if image.kind == kind])
        subprocess.run(
            [sys.executable, "-c", _IMPORT_ALL, root / kind / "app", kind, *libraries],
            env={"PATH": "/usr/bin:/bin", "HOME": str(root), "OMP_NUM_THREADS": "1"},
            cwd=root,
            check=True,
        )
    return root


@pytest.mark.parametrize(
    "registry", ["bad registry:x y", "host/Upper", "host/", "/x", "host:port/x", "a" * 300, "x\ny"]
)
def test_a_registry_that_no_image_can_be_named_by_is_refused(
    registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="--registry="):
        registry_of(registry)
    monkeypatch.setenv("STREETVISION_REGISTRY", registry)
    with pytest.raises(ConfigError, match="STREETVISION_REGISTRY="):
        registry_of()
    for name in ("streetvision", "Host.example:5000/team/a_b/c--d", "127.0.0.1:5000", "a.b/c"):
        assert registry_of(name) == name


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.phase)
def test_the_context_holds_all_that_the_step_imports(image: PhaseImage, contexts: Path) -> None:
    app = contexts / image.kind / "app" / image.phase
    assert list(app.rglob("*.py"))
    assert app.with_suffix(".imported").exists(), app.with_suffix(".log").read_text()


def test_references_are_tags_that_a_registry_accepts() -> None:
    assert len({image.reference for image in IMAGES}) == len(IMAGES)
    for image in IMAGES:
        name, _, tag = image.reference.rpartition(":")
        assert name.endswith(f"/{image.kind}")
        assert len(tag) <= 128
        assert tag != "latest"


def test_the_registry_is_given_or_the_environments_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("STREETVISION_REGISTRY", raising=False)
    assert registry_of() == "streetvision"
    monkeypatch.setenv("STREETVISION_REGISTRY", "registry.example.com/street")
    assert registry_of() == load_profile("cpu").registry == "registry.example.com/street"
    assert load_profile("cpu", registry="another").registry == registry_of("another") == "another"

    (image,) = (image for image in all_images(registry_of()) if image.phase == "evaluate")
    default = next(image for image in IMAGES if image.phase == "evaluate")
    assert image.reference == default.reference.replace("streetvision/", f"{registry_of()}/", 1)
    compiled = json_format.MessageToJson(stage1(load_profile("cpu")).pipeline_spec)
    assert image.reference in compiled
    assert default.reference not in compiled


# Looked for before anything is compared, where an option asks for what needs them.
_OF_EXTRAS = ("model_registry",)
# What policies are fitted with, which a server only applies.
_OF_FITTING = {"server": ("scipy", "sklearn")}


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.phase)
def test_the_requirements_name_what_the_step_imports(image: PhaseImage) -> None:
    """Also imports inside functions: a missing library would be noticed only in the middle of a
    run.
    """
    required = _required(ROOT / f"images/{image.kind}/requirements.txt")
    distributions = metadata.packages_distributions()
    for source in (file for file in phase_sources(image.phase) if file.suffix == ".py"):
        for module in _third_party(source):
            if module in (*_OF_EXTRAS, *_OF_FITTING.get(image.kind, ())):
                continue
            names = {canonicalize_name(name) for name in distributions.get(module, [module])}
            assert names & required, f"{source.relative_to(ROOT)} imports {module}"


def _required(file: Path) -> set[str]:
    names = set()
    for line in file.read_text().splitlines():
        if line.startswith("-r "):
            names |= _required(file.parent / line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            names.add(canonicalize_name(line))
    return names


def _third_party(source: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"components", "pipelines"}
