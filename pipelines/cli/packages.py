"""Verbs for images, the compiled pipeline and data: what a run needs before it starts."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from components.shared.contracts.environment import Variable
from components.shared.contracts.listing import first_of
from pipelines.cli.declare import PACKAGES, verb
from pipelines.cli.options import DryRun, GraphOptions, PipelineKey, Registry, ResourceOptions
from pipelines.exit_codes import INTERRUPTED
from pipelines.kubeflow.options import ApiOptions, StoreOptions
from pipelines.names import STAGE1

app = typer.Typer()

_NAMED = 3
_IMAGES_NOTES = f"""
example:
  python -m pipelines images --registry registry.example.com/streetvision --build --push

environment: {Variable.DOCKER} is the client, {Variable.BASE_IMAGE} another base than the pinned
one; {Variable.PIP_FIND_LINKS} (a folder of wheels) and {Variable.PIP_CERT} (a PEM bundle) reach pip
inside the build and stay out of the images.

images/pushed.json has the digest of each image that was pushed: the compiled pipeline names it, and
--push neither builds nor pushes it again. Commit the file to share it; without its line an image is
pushed anew. An image that was not pushed is named by its tag.
"""
_COMPILE_NOTES = """
example:
  python -m pipelines compile --profile a6000x1 --modes full,lora
"""
_TRAIN_JOBS_NOTES = """
examples:
  python -m pipelines train-jobs --profile four-nodes.yaml
  python -m pipelines train-jobs --profile four-nodes.yaml | kubectl create --dry-run=server -f -

The second command asks the cluster's Kubeflow Trainer whether it accepts them; nothing is started.
"""
_UPLOAD_NOTES = """
example:
  python -m pipelines upload --profile a6000x1 --dry-run
"""
_UPLOAD_DATA_NOTES = f"""
A data set is a folder with labels.csv, Parquet, or one folder of images per class; a backbone has
config.json and safetensors.
Objects with the same digest are not sent again, so that the same command continues an interrupted
upload.

examples:
  python -m pipelines upload-data photos s3://streetvision/data/photos
  python -m pipelines upload-data dinov2-small s3://streetvision/backbones/dinov2-small

The store is that of {Variable.S3_ENDPOINT}, {Variable.S3_ACCESS_KEY} and {Variable.S3_SECRET_KEY},
else that of the cluster's pipeline root; from outside the cluster forward its port and give
--store-endpoint.
"""


@verb(app, "images", PACKAGES, notes=_IMAGES_NOTES)
def images(
    build: Annotated[
        bool, typer.Option("--build", help="Build those that the engine does not hold yet.")
    ] = False,
    push: Annotated[
        bool, typer.Option("--push", help="Push them, and record their digests.")
    ] = False,
    registry: Registry = "",
) -> None:
    """List, build or push the images of the pipeline's phases and of the server.

    One line for each: its image, named by a digest of the sources that it runs.
    """
    from pipelines.images import Builder, all_images, build_images, missing_images, push_images
    from pipelines.sources import registry_of

    images, builder = all_images(registry_of(registry)), Builder.from_environment()
    wanted = [image for image in images if not (push and image.was_pushed)]
    missing = missing_images(wanted, builder) if build and wanted else []
    for image in missing:
        print(f"building {image.tagged}", flush=True)
        build_images([image], builder)

    if push:
        before = [image for image in images if image.was_pushed]
        images = sorted([*before, *push_images(wanted, builder)])
        print(f"{len(wanted)} pushed, {len(before)} were before")
    for image in images:
        print(image.reference)
    if build:
        print(f"{len(missing)} built, {len(images) - len(missing)} were there")


@verb(app, "compile", PACKAGES, notes=_COMPILE_NOTES)
def compile_(
    resources: ResourceOptions,
    graph: GraphOptions,
    pipeline: PipelineKey = STAGE1,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="The file to write.",
            show_default="build/ and the pipeline's name",
        ),
    ] = None,
) -> None:
    """Write the pipeline spec for Kubeflow (YAML)."""
    import yaml

    from pipelines.graph import critical_path, steps_of
    from pipelines.package import write_package

    output = output or Path("build", f"{pipeline}.yaml")
    version = write_package(output, resources.load(), graph.variant(pipeline))
    print(f"wrote {output} ({version})")

    spec = next(yaml.safe_load_all(output.read_text(encoding="utf-8")))
    path = critical_path(spec)
    n_fields = len(spec["root"]["inputDefinitions"]["parameters"])
    print(
        f"{len(steps_of(spec))} steps, a form of {n_fields} fields,"
        f" {output.stat().st_size / 1000:.0f} kB, {path.pods} pods on the critical path,"
        f" {path.driver_only} of them only open a group"
    )


@verb(app, "train-jobs", PACKAGES, notes=_TRAIN_JOBS_NOTES)
def train_jobs(
    resources: ResourceOptions, graph: GraphOptions, pipeline: PipelineKey = STAGE1
) -> None:
    """Print the TrainJobs of a profile with several nodes (YAML)."""
    import yaml

    from pipelines.train_job import shown_train_jobs

    jobs = shown_train_jobs(resources.load(), graph.variant(pipeline))
    print(yaml.safe_dump_all(jobs, sort_keys=False), end="")


@verb(app, "upload", PACKAGES, notes=_UPLOAD_NOTES)
def upload(
    api: ApiOptions, resources: ResourceOptions, graph: GraphOptions, dry_run: DryRun = False
) -> None:
    """Compile and upload a version of the pipeline; do nothing if its content is there."""
    from pipelines.kubeflow.cluster import connect
    from pipelines.package import package_named

    file, version = package_named(api.pipeline, resources.load(), graph.variant_of(api))
    if dry_run:
        show({"pipeline": api.pipeline, "version": version})
        return

    uploaded = connect(api).upload(file, api.pipeline, version)
    print(
        f"version {version} uploaded"
        if uploaded.created
        else f"version {version} is there already, nothing to do"
    )


@verb(app, "upload-data", PACKAGES, notes=_UPLOAD_DATA_NOTES)
def upload_data(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Data set (labels.csv, Parquet, or a folder per class) or backbone.",
        ),
    ],
    address: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="s3://bucket/prefix; minio:// is the same.")
    ],
    api: ApiOptions,
    store: StoreOptions,
    delete: Annotated[
        bool,
        typer.Option("--delete", help="Remove objects below ADDRESS that FOLDER does not have."),
    ] = False,
) -> None:
    """Copy a data set or a backbone to the object store, from where a run reads it."""
    from pipelines.upload_data.location import find_store, split_address
    from pipelines.upload_data.selection import select
    from pipelines.upload_data.transfer import transfer

    bucket, prefix = split_address(address)
    selection = select(folder)
    n_files = _files(len(selection.files))
    print(f"{selection.kind}: {n_files}, {megabytes(selection.n_bytes)}", flush=True)
    if selection.left_out:
        print(f"not sent, since no step reads it: {first_of(selection.left_out, most=_NAMED)}")

    runs = find_store(api, store)
    try:
        done = transfer(runs.store, selection.files, bucket, prefix, delete=delete)
    except KeyboardInterrupt as interrupt:
        print(
            "interrupted; the objects that were sent are complete, and the same command sends the"
            " rest",
            file=sys.stderr,
        )
        sys.exit(getattr(interrupt, "exit_code", INTERRUPTED))

    removed = f", {done.n_deleted} removed" if delete else ""
    print(
        f"{_files(done.n_sent)} sent ({megabytes(done.sent_bytes)}), {done.n_kept} were"
        f" there{removed}; all verified"
    )

    if done.stale:
        print(
            f"{len(done.stale)} other object(s) stay below the address:"
            f" {first_of(done.stale, most=_NAMED)}; --delete removes them"
        )

    print(f"for submit: --param {selection.kind}=s3://{bucket}/{prefix}")


def show(document: dict[str, object]) -> None:
    """Print what --dry-run would send."""
    print(json.dumps(document, indent=1, sort_keys=True))


def megabytes(n_bytes: int) -> str:
    """Return a size as a person reads it."""
    return f"{n_bytes / 1e6:.1f} MB"


def _files(n: int) -> str:
    return f"{n} file" if n == 1 else f"{n} files"
