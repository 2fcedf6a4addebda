"""Which verbs of the command line need a container engine or a cluster?"""

import argparse
from typing import Any

Verbs = Any  # argparse's own type of sub-parsers is private


def add_verbs(verbs: Verbs) -> None:
    """Add them to the command line's sub-parsers."""
    _add_images(verbs)


def _add_images(verbs: Verbs) -> None:
    parser = verbs.add_parser(
        "images",
        help="list, build or push the images that the compiled pipeline names",
        description="One line for each phase: its image, named by a digest of the sources that go into it.",
        epilog=(
            "environment: STREETVISION_REGISTRY is the names' prefix (default: streetvision), DOCKER the client,\n"
            "STREETVISION_BASE_IMAGE another base than the pinned one; PIP_FIND_LINKS (a folder of wheels) and\n"
            "PIP_CERT (a PEM bundle) reach pip inside the build and stay out of the images."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--build", action="store_true", help="build those that the engine does not hold yet")
    parser.add_argument("--push", action="store_true", help="push all of them")
    parser.set_defaults(verb=_images)


def _images(parsed: argparse.Namespace) -> None:
    from pipelines.images import Builder, build_images, missing_images, pipeline_images, push_images

    images, builder = pipeline_images(), Builder.from_environment()
    missing = missing_images(images, builder) if parsed.build else []
    for image in missing:
        print(f"building {image.reference}", flush=True)
        build_images([image], builder)
    if parsed.push:
        push_images(images, builder)
    for image in images:
        print(image.reference)
    if parsed.build:
        print(f"{len(missing)} built, {len(images) - len(missing)} were there")
