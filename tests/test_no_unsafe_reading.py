"""Nothing from a file is ever unpickled or executed, or read without bounds and types."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    file for folder in ("components", "pipelines") for file in (ROOT / folder).rglob("*.py")
)
_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "jsonpickle",
}
_CALLS = {
    "eval",
    "exec",
    "compile",
    "torch.load",
    "torch.jit.load",
    "torch.hub.load",
    "torch.package.PackageImporter",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "pd.read_pickle",
    "pandas.read_pickle",
    "os.system",
    "os.popen",
    "dist.all_gather_object",
    "dist.broadcast_object_list",
    "dist.gather_object",
    "dist.scatter_object_list",
}


def findings(source: str) -> Iterator[str]:
    """What in this source reads unsafely, as "line: what"."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").split(".")[0]]
        else:
            names = []
        yield from (f"{node.lineno}: import {name}" for name in names if name in _MODULES)  # type: ignore[attr-defined]
        if isinstance(node, ast.Call):
            yield from _call(node)


def _call(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func)
    if name in _CALLS or name.endswith(("_object_list", "gather_object")):
        yield f"{node.lineno}: {name}()"
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if name.endswith("np.load") and options.get("allow_pickle") != "False":
        yield f"{node.lineno}: {name}() without allow_pickle=False"
    if name.endswith((".from_pretrained", ".from_config")) and (
        options.get("trust_remote_code") != "False" and not name.startswith("PeftModel.")
    ):
        yield f"{node.lineno}: {name}() without trust_remote_code=False"
    for option in ("trust_remote_code", "shell"):
        if options.get(option, "False") != "False":
            yield f"{node.lineno}: {name}({option}={options[option]})"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_the_source_reads_nothing_unsafely(file: Path) -> None:
    assert list(findings(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(f)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "yaml.load(f, Loader)",
        "eval(x)",
        "dist.all_gather_object(a, b)",
        "from_pretrained(x, trust_remote_code=True)",
        "AutoModel.from_pretrained(x)",
        "AutoModel.from_config(x)",
        "subprocess.run(c, shell=True)",
    ],
)
def test_the_rule_finds_what_it_is_for(line: str) -> None:
    assert len(list(findings(line))) == 1


def test_weights_are_read_in_one_place() -> None:
    """Every other module hands its folder to models/loading.py, which screens it first.

    A checkpoint of training is read by its own module, which verifies its manifest first.
    """
    readers = {"from_pretrained", "load_file", "safe_open", "load_model"}
    found = {
        file.relative_to(ROOT).as_posix()
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in readers)
        or (isinstance(node, ast.ImportFrom) and readers & {alias.name for alias in node.names})
    }
    assert found == {
        "components/shared/models/loading.py",
        "components/shared/training/checkpoint/files.py",
    }


def test_safe_forms_are_not_reported() -> None:
    assert (
        list(
            findings(
                "np.load(f, allow_pickle=False); yaml.safe_load(f); model.eval(); re.compile(x)"
            )
        )
        == []
    )


# Readers without bounds or types, and the modules that may call them: those that are the bounded
# readers, and those that read back what the same process wrote, or a server's answers.
_UNBOUNDED = {"json.load", "json.loads", "yaml.safe_load", "yaml.safe_load_all", "np.load"}
_MAY_READ = {
    "components/shared/contracts/documents.py": "the reader of documents",
    "components/shared/data/arrays.py": "the reader of arrays",
    "components/configure/recipes/__init__.py": "files of the project",
    "components/shared/calibration/calibrator.py": "tuples become lists",
    "components/shared/contracts/config.py": "tuples become lists",
    "components/shared/training/launch/kubernetes_api.py": "answers of the cluster",
    "components/shared/training/loop/profiler.py": "the trace that it has just written",
    "pipelines/cli/packages.py": "the spec that was just compiled",
    "pipelines/package.py": "the spec that was just compiled",
    "pipelines/parameters.py": "numbers become texts",
    "pipelines/local/command_line.py": "the command line that kfp has just made",
    "pipelines/local/server_process.py": "a line of the process that it started",
    "pipelines/doctor/argo.py": "answers of the cluster",
    "pipelines/doctor/scheduling.py": "answers of the cluster",
    "pipelines/kubeflow/connection.py": "answers of the cluster",
    "pipelines/kubeflow/launcher.py": "answers of the cluster",
    "pipelines/kubeflow/run_pods.py": "answers of the cluster",
}


def test_documents_and_arrays_are_read_by_the_bounded_readers() -> None:
    calling = {
        file.relative_to(ROOT).as_posix()
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in _UNBOUNDED
    }
    assert calling == _MAY_READ.keys()
