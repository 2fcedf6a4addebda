"""The verb `score`: answers of a bundle to all images below an address, here."""

import contextlib
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.shared.contracts.errors import PERMANENT_EXIT_CODE, ConfigError
from pipelines.cli.declare import LOCAL, verb
from pipelines.cli.registry_options import (
    BundleArgument,
    Json,
    RegistryOptions,
    TrustedKeys,
    verified_bundle,
)
from pipelines.kubeflow.options import ApiAddress, StoreOptions

if TYPE_CHECKING:
    from components.score_images.config import ScoreImagesConfig

app = typer.Typer()

_NOTES = """
examples:
  python -m pipelines score BUNDLE photos -o scores.parquet
  python -m pipelines score champion s3://bucket/2026-11-27 -o scores.parquet --form onnx
  python -m pipelines submit --pipeline score --param images=s3://bucket/2026-11-27

The file has one row for each image, sorted by path: path, decision, probability, views, error.
"decision" is what `predict` answers, of several classes "A or B"; an image that cannot be read has
the reason under "error" and nothing else. Started again after an interruption, the verb goes on
where it was, in the folder .checkpoints beside FILE, and writes the same file.

exit code: 0, or 42 where some images cannot be read: the file is complete nevertheless
"""


@verb(app, "score", LOCAL, notes=_NOTES)
def score(
    where: RegistryOptions,
    api: ApiAddress,
    store: StoreOptions,
    bundle: BundleArgument,
    images: Annotated[
        str, typer.Argument(metavar="IMAGES", help="Folder or s3://bucket/prefix of images.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="New Parquet file to write.")
    ] = Path("scores.parquet"),
    form: Annotated[
        str,
        typer.Option(
            "--form",
            metavar="FORM",
            help="Form of the bundle that answers: transformers, onnx or onnx_int8.",
        ),
    ] = "transformers",
    trusted_keys: TrustedKeys = "",
    as_json: Json = False,
) -> None:
    """Score all images below an address, one row of a Parquet table for each."""
    from components.score_images.config import ScoreImagesConfig

    if output.exists():
        raise ConfigError(f"{output} exists; give --output a file that does not")
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"--output {str(output)!r}: the folder does not exist; make it first")

    config = ScoreImagesConfig(images=images, form=form)
    # What the step says is no part of the document.
    said = contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout)
    with verified_bundle(bundle, where, api, store, trusted_keys) as opened, said:
        found = _scored(config, opened.path, output)

    if as_json:
        print(json.dumps(found | {"path": str(output)}, indent=1))
    else:
        print(f"table: {output}")
    if found["n_rejected"]:
        sys.exit(PERMANENT_EXIT_CODE)


def _scored(config: "ScoreImagesConfig", bundle: Path, output: Path) -> dict[str, Any]:
    """Run the steps, and keep the table of the last one's artifact."""
    from components.score_images.step import run
    from components.score_images.table import FILE

    artifact = output.with_name(f".{output.name}.artifact")
    try:
        found = run(config, bundle=bundle, scores=artifact)
        (artifact / FILE).replace(output)
    finally:
        shutil.rmtree(artifact, ignore_errors=True)
    return found
