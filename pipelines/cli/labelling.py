"""The verb that chooses new images for labelling."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from components.shared.contracts.errors import ConfigError
from pipelines.cli.declare import CHAMPION, verb
from pipelines.cli.registry_options import (
    Json,
    RegistryOptions,
    TrustedKeys,
    bundle_location,
)
from pipelines.kubeflow.options import ApiAddress, StoreOptions

app = typer.Typer()

_NOTES = """
examples:
  python -m pipelines select-for-labelling photos --bundle BUNDLE
  python -m pipelines select-for-labelling s3://photos/new --count 200 --runs runs
  python -m pipelines submit --pipeline labelling --params labelling.yaml

Images that the bundle defers come first, then those that it is least sure of and that differ from
one another; of near-duplicates one. The folder holds selection.csv, and for Label Studio
label_studio.xml (labelling interface) and label_studio.json (tasks with the bundle's answers).
"""


@verb(app, "select-for-labelling", CHAMPION, notes=_NOTES)
def select_for_labelling(
    where: RegistryOptions,
    api: ApiAddress,
    store: StoreOptions,
    images: Annotated[
        str,
        typer.Argument(metavar="IMAGES", help="Folder or s3://bucket/prefix of new images."),
    ],
    bundle: Annotated[
        str,
        typer.Option(
            "--bundle",
            metavar="BUNDLE",
            help="Folder or s3://bucket/prefix of a bundle, digest in the registry, or champion.",
        ),
    ] = "champion",
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=1, help="Number of images to choose.")
    ] = 100,
    address: Annotated[
        str,
        typer.Option(
            "--address",
            metavar="URL",
            help="Address below which Label Studio finds the images.",
            show_default="IMAGES, or Label Studio's local storage",
        ),
    ] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the choice.")] = 0,
    output: Annotated[
        Path, typer.Option("--output", metavar="FOLDER", help="New folder to write to.")
    ] = Path("labelling"),
    trusted_keys: TrustedKeys = "",
    as_json: Json = False,
) -> None:
    """Choose the new images whose labels would teach the champion most."""
    from components.select_for_labelling.config import SelectForLabellingConfig
    from components.select_for_labelling.step import run
    from components.shared.serving.signature import trusting

    if output.exists():
        raise ConfigError(f"{output} exists; give --output a folder that does not")

    with trusting(trusted_keys), bundle_location(bundle, where, api, store) as folder:
        config = SelectForLabellingConfig(
            bundle=folder, images=images, n_images=count, image_address=address, seed=seed
        )
        # What the step says is no part of the document.
        with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
            counts = run(config, labelling_tasks=output)

    if as_json:
        whole = {name: int(value) for name, value in counts.items()}
        print(json.dumps(whole | {"path": str(output)}, indent=1))
    else:
        print(f"table: {output / 'selection.csv'}")
        print(f"Label Studio: {output / 'label_studio.json'}")
