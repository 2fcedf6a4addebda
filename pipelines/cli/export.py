"""Verbs that write a bundle in the form of another server: `export triton`, `export tensorrt`."""

import contextlib
import json as json_
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from components.shared.contracts.errors import ConfigError
from components.shared.contracts.formats import ONNX, ONNX_INT8
from components.shared.contracts.listing import shown
from pipelines.cli.declare import LOCAL, verb
from pipelines.cli.help import VerbGroup
from pipelines.cli.registry_options import (
    BundleArgument,
    Json,
    RegistryOptions,
    TrustedKeys,
    verified_bundle,
)
from pipelines.kubeflow.options import ApiAddress, StoreOptions

app = typer.Typer()
export = typer.Typer(
    cls=VerbGroup,
    help="Write a bundle in the form of another server.",
    subcommand_metavar="TARGET [ARGS]...",
)
app.add_typer(export, name="export", rich_help_panel=LOCAL)

_FORMS = (ONNX, ONNX_INT8)
_TRITON_NOTES = """
examples:
  python -m pipelines export triton BUNDLE --output models
  python -m pipelines export triton champion --output models --form onnx_int8 --instances 4

The repository holds a model NAME, which takes pixels: UINT8 of [S, S, 3], RGB; of a bundle exported
with onnx_resize, of any height and width. Its output "decision" is a code; decisions.txt has the
names. Of a model of several views NAME is the full image alone, and NAME_all_views an ensemble of
all. docs/guides/triton.md has a client.
"""


@verb(export, "triton", notes=_TRITON_NOTES)
def triton(
    where: RegistryOptions,
    api: ApiAddress,
    store: StoreOptions,
    bundle: BundleArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="New folder to write to.")
    ] = Path("models"),
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Name of the model in Triton.")
    ] = "streetvision",
    form: Annotated[
        str,
        typer.Option("--form", metavar="FORM", help=f"Form of the bundle: {' or '.join(_FORMS)}."),
    ] = ONNX,
    instances: Annotated[
        int, typer.Option("--instances", metavar="N", min=1, help="Executions at once.")
    ] = 1,
    gpu: Annotated[
        bool,
        typer.Option("--gpu", help="Run on GPUs, where answers were not compared."),
    ] = False,
    trusted_keys: TrustedKeys = "",
    json: Json = False,
) -> None:
    """Write a Triton model repository of a bundle's ONNX form."""
    from components.shared.serving.formats.onnx_predictor import OnnxPredictor
    from components.shared.serving.formats.triton import require_name, write_repository

    if form not in _FORMS:
        raise ConfigError(f"form={shown(form)} must be {' or '.join(_FORMS)}")
    require_name(name)
    with (
        _written(output) as folder,
        verified_bundle(bundle, where, api, store, trusted_keys) as opened,
    ):
        predictor = OnnxPredictor(opened, form)
        models = write_repository(
            predictor, opened, folder, name=name, n_instances=instances, on_gpu=gpu
        )

    if json:
        print(json_.dumps({"path": str(output), "models": models}, indent=1))
    else:
        print(f"models of Triton in {output}: {', '.join(models)}")


_TENSORRT_NOTES = """
examples:
  python -m pipelines export tensorrt BUNDLE --output engines

Run it on the machine that will use the engines: they fit its GPU and its version of TensorRT.
They compute in float32. Their outputs for the reference image must be those that the bundle
stores, and those of the ONNX form; nothing is written otherwise. docs/guides/triton.md says what
was tested.
"""


@verb(export, "tensorrt", notes=_TENSORRT_NOTES)
def tensorrt(
    where: RegistryOptions,
    api: ApiAddress,
    store: StoreOptions,
    bundle: BundleArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="New folder to write to.")
    ] = Path("engines"),
    trusted_keys: TrustedKeys = "",
    json: Json = False,
) -> None:
    """Build TensorRT engines of a bundle's ONNX form, on the GPU that will run them."""
    from components.shared.serving.tensorrt_engine import load_tensorrt, write_engines

    trt = load_tensorrt()  # before a bundle is fetched
    with (
        _written(output) as folder,
        verified_bundle(bundle, where, api, store, trusted_keys) as opened,
    ):
        engines = write_engines(trt, opened, folder)

    if json:
        print(json_.dumps({"path": str(output), "engines": engines}, indent=1))
    else:
        print(f"engines of TensorRT in {output}: {', '.join(engines)}")


@contextlib.contextmanager
def _written(output: Path) -> Iterator[Path]:
    """Yield the name of a new folder that becomes `output`, unless something fails.

    Raises ConfigError where `output` exists or cannot be made, before anything is done for it.
    """
    if output.exists():
        raise ConfigError(f"{output} exists; give --output a folder that does not")
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"--output {str(output)!r}: the folder above it does not exist; make it")

    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with _naming(output):
            partial.mkdir()
        yield partial / output.name
        with _naming(output):
            (partial / output.name).replace(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _naming(output: Path) -> Iterator[None]:
    """Let an error of the file system name the option."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            f"--output {str(output)!r}: cannot be written ({reason}); give another folder"
        ) from error
