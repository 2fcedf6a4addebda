"""The verb `drift`: compare new images with a bundle's drift reference, here."""

import contextlib
import json as json_
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.shared.contracts.errors import ConfigError
from pipelines.cli.declare import LOCAL, verb
from pipelines.cli.registry_options import Json, TrustedKeys
from pipelines.exit_codes import DRIFTED

if TYPE_CHECKING:
    from components.detect_drift.config import DetectDriftConfig
    from components.detect_drift.step import Result

app = typer.Typer()

_NOTES = """
examples:
  python -m pipelines drift --reference bundle --images s3://bucket/2026-11-27
  python -m pipelines drift --images s3://bucket/tonight --option false_alarm_rate=0.05 --json
  python -m pipelines schedule create drift --pipeline drift --every 86400 --params drift.yaml

One test decides: a classifier that is trained to tell new from reference images, and asked about
images that it has not seen. Without drift it alarms at the rate of false_alarm_rate, 0.01 by
default. The other figures explain. docs/guides/drift.md says what each reads as.

exit code: 0 no drift, 3 drift, 42 images or bundle cannot be compared
"""


@verb(app, "drift", LOCAL, notes=_NOTES)
def drift(
    images: Annotated[
        str,
        typer.Option(
            "--images", metavar="PLACE", help="New images: a folder or s3://bucket/prefix."
        ),
    ],
    reference: Annotated[
        str,
        typer.Option(
            "--reference",
            metavar="BUNDLE",
            help="Folder of a bundle, s3://bucket/prefix of one, digits of its digest in the"
            " registry, or champion.",
        ),
    ] = "champion",
    bundle_registry: Annotated[
        str,
        typer.Option(
            "--bundle-registry", metavar="URI", help="Registry of bundles, s3://bucket/prefix."
        ),
    ] = "",
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="KEY=VALUE",
            help="An option of detect_drift, as docs/reference has them. May be repeated.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FOLDER",
            help="Keep drift.json, images.csv and report.html there.",
            show_default="not kept",
        ),
    ] = None,
    trusted_keys: TrustedKeys = "",
    json: Json = False,
) -> None:
    """Compare new images with what a bundle was calibrated on."""
    from components.shared.serving.signature import trusting

    config = _config(images, reference, bundle_registry, option or [])
    # A JSON document stands alone on stdout.
    said = contextlib.redirect_stdout(sys.stderr if json else sys.stdout)
    with trusting(trusted_keys), said:
        found = _compared(config, output)

    if json:
        print(json_.dumps(found.document, indent=1))
    elif output is not None:
        print(f"report: {output / 'report.html'}")
    if found.is_drift:
        sys.exit(DRIFTED)


def _config(
    images: str, reference: str, bundle_registry: str, given: list[str]
) -> "DetectDriftConfig":
    """Return the step's configuration. Raises ConfigError."""
    from components.detect_drift.config import DetectDriftConfig
    from pipelines.plain_yaml import parse_yaml

    values: dict[str, object] = {}
    for pair in given:
        key, separator, text = pair.partition("=")
        if not separator:
            raise ConfigError(f"--option {pair!r} must be key=value")
        values[key] = parse_yaml(text, f"--option {key}")

    places = {"images": images, "reference": reference, "bundle_registry": bundle_registry}
    return DetectDriftConfig.from_mapping(values | places)


def _compared(config: "DetectDriftConfig", output: Path | None) -> "Result":
    """Run the step; the artifact goes where `output` says, else nowhere."""
    from components.detect_drift.step import run

    if output is not None:
        if output.exists() and not (output / "drift.json").is_file():
            raise ConfigError(f"--output {str(output)!r} exists and holds no drift.json")
        return run(config, drift=output)
    with tempfile.TemporaryDirectory(prefix="streetvision-drift-") as folder:
        return run(config, drift=Path(folder) / "drift")
