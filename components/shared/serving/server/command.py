"""Command that serves a bundle over HTTP and gRPC.

`python -m components.shared.serving.server BUNDLE`
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError, StreetVisionError
from components.shared.contracts.formats import ONNX, ONNX_INT8
from components.shared.contracts.step import fail
from components.shared.serving.arguments import digest
from components.shared.serving.server.limits import MIB, Limits
from components.shared.serving.signature import trusting

PROGRAM = "python -m components.shared.serving.server"
_DEFAULT = Limits()
_EXAMPLE = """\
examples:
  python -m components.shared.serving.server bundle
  python -m components.shared.serving.server --form onnx_int8 --queue 32 bundle
  python -m components.shared.serving.server --follow s3://bucket/registry

  curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg http://localhost:8080/predict
  {"image": "5f0c31b2a6d94e77", "decision": "Roadwork", "probability": 0.913204, ...}

The answer is the line that `predict` prints; "image" is the name of the file in a form, otherwise
the first 16 hex digits of the image's SHA-256. The Open Inference Protocol v2 is served at
/v2/models/MODEL/infer and over gRPC, probes at /v2/health/live and /v2/health/ready, metrics at
/metrics. docs/guides/server.md has all routes, limits and metrics.

The bundle is verified before the ports open: a changed, missing or additional file ends the command
with exit code 42. When the server can answer, it prints one line of JSON with its ports. SIGTERM
lets it answer what it has accepted, and end with exit code 0.

With --follow the champion of a registry is served; a new champion is downloaded and verified beside
the one that answers, and takes its place without a dropped request. What cannot be served is said
on stderr, and the earlier bundle goes on.

A request is refused with 4xx and the reason if it is at fault, and with 503 and Retry-After if too
many images are waiting.
"""


def main(given: Sequence[str] | None = None, program: str = PROGRAM) -> None:
    """Serve until a signal asks the process to end.

    Args:
        given: the arguments; those of the process if None.
        program: how the command was called, for its help text.

    Raises:
        SystemExit: 42 if the bundle or an option was refused.
    """
    arguments = _parser(program).parse_args(given)
    folders = tempfile.TemporaryDirectory(prefix="streetvision-serve-")
    try:
        with trusting(arguments.trusted_keys or ""), folders as folder:
            _serve(arguments, Path(folder))
    except StreetVisionError as error:
        fail(error)


def _serve(arguments: argparse.Namespace, folder: Path) -> None:
    """Load the bundle, then open the ports."""
    if (arguments.bundle is None) == (arguments.follow is None):
        raise ConfigError("name either a BUNDLE, or the registry to --follow")
    if arguments.follow is not None and arguments.digest is not None:
        raise ConfigError("--follow serves the registry's champion, whatever its --digest")

    # Seconds of imports, which a wrong option need not wait for.
    from components.shared.data.decode import without_warnings
    from components.shared.serving.server.loading import Loader

    try:
        from components.shared.serving.server.process import Address, Followed, serve
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the library {error.name} is not installed; install those of the server:"
            " pip install -r requirements-server.txt"
        ) from error
    from components.shared.serving.stage2 import Stage2
    from components.shared.storage.registry import open_registry

    loader, followed = Loader(arguments.form, arguments.threads, folder), None
    if arguments.follow is None:
        loaded = loader.given(arguments.bundle, arguments.bundle_registry, arguments.digest)
    else:
        registry = open_registry(arguments.follow)
        loaded = loader.registered(registry)
        followed = Followed(registry=registry, loader=loader, seconds=arguments.follow_seconds)

    target = arguments.stage2
    stage2 = None if target is None else Stage2.of(target, loaded.outcomes)
    address = Address(
        host=arguments.host,
        port=arguments.port,
        grpc_port=None if arguments.no_grpc else arguments.grpc_port,
    )
    with without_warnings():
        serve(
            loaded,
            address,
            _limits(arguments),
            name=arguments.model,
            stage2=stage2,
            followed=followed,
        )


def _limits(arguments: argparse.Namespace) -> Limits:
    return Limits(
        body_bytes=round(arguments.max_mib * MIB),
        pixels=round(arguments.max_megapixels * 1e6),
        queued_images=arguments.queue,
        batch_images=arguments.batch,
        batch_wait_seconds=arguments.batch_wait_ms / 1000,
        request_seconds=arguments.request_seconds,
        client_seconds=arguments.client_seconds,
        shutdown_seconds=arguments.shutdown_seconds,
    )


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Serve a bundle over HTTP and gRPC.",
        epilog=_EXAMPLE.replace(PROGRAM, program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "bundle",
        nargs="?",
        metavar="BUNDLE",
        help="a folder, s3://bucket/prefix, digits of a digest in the registry, or champion",
    )
    _add_bundle_options(parser)
    _add_addresses(parser)
    _add_limits(parser)
    return parser


def _add_bundle_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what answers")
    group.add_argument(
        "--form",
        choices=(ONNX, ONNX_INT8),
        default=ONNX,
        help="which format of the bundle computes (default: onnx)",
    )
    group.add_argument(
        "--threads",
        type=_number(int, 0),
        default=0,
        metavar="N",
        help="that compute a batch (default: as many cores as the container may use)",
    )
    group.add_argument(
        "--digest",
        type=digest,
        metavar="HEX",
        help="refuse a bundle with another content digest: 64 hex digits",
    )
    group.add_argument(
        "--trusted-keys",
        type=Path,
        metavar="FILE",
        help="PEM file with public keys and certificates of authorities, one of which must have"
        f" signed the bundle (default: that of {Variable.TRUSTED_KEYS})",
    )
    group.add_argument(
        "--bundle-registry",
        default="",
        metavar="URI",
        help="registry of a BUNDLE that is named by a digest, or champion",
    )
    group.add_argument(
        "--follow",
        metavar="URI",
        help="serve the champion of this registry, s3://bucket/prefix, and each new one",
    )
    group.add_argument(
        "--follow-seconds",
        type=_number(float, 0.1),
        default=30.0,
        metavar="S",
        help="between two looks at the registry (default: 30)",
    )
    group.add_argument(
        "--stage2",
        metavar="URL|MODULE:FUNCTION",
        help="who answers what the policy defers: a service, or a function of your Python",
    )


def _add_addresses(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where it listens (port 0: a free one)")
    group.add_argument("--host", default="0.0.0.0", help="address (default: 0.0.0.0)")  # noqa: S104
    group.add_argument(
        "--port", type=_port, default=8080, metavar="N", help="of HTTP (default: 8080)"
    )
    group.add_argument(
        "--grpc-port", type=_port, default=8081, metavar="N", help="of gRPC (default: 8081)"
    )
    group.add_argument("--no-grpc", action="store_true", help="open no port of gRPC")
    group.add_argument(
        "--model",
        default="streetvision",
        metavar="NAME",
        help="name in the routes of the protocol (default: streetvision)",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    for option, kind, least, value, help_text in (
        ("--max-mib", float, 0.001, _DEFAULT.body_bytes / MIB, "size of a request, in MiB"),
        ("--max-megapixels", float, 0.001, _DEFAULT.pixels / 1e6, "width times height of an image"),
        ("--queue", int, 1, _DEFAULT.queued_images, "images that wait or are computed; above: 503"),
        ("--batch", int, 1, _DEFAULT.batch_images, "images that are computed at once"),
        (
            "--batch-wait-ms",
            float,
            0,
            _DEFAULT.batch_wait_seconds * 1000,
            "milliseconds for which a batch waits for images that are being decoded",
        ),
        ("--request-seconds", float, 0.01, _DEFAULT.request_seconds, "for an answer; then: 503"),
        (
            "--client-seconds",
            float,
            0.01,
            _DEFAULT.client_seconds,
            "for a client to send a request; then: 408",
        ),
        (
            "--shutdown-seconds",
            float,
            0,
            _DEFAULT.shutdown_seconds,
            "for accepted requests after SIGTERM",
        ),
    ):
        group.add_argument(
            option,
            type=_number(kind, least),
            default=value,
            metavar="N",
            help=f"{help_text} (default: {value:g})",
        )


def _number(kind: Callable[[str], float], least: float) -> Callable[[str], float]:
    """Return a reader of numbers of at least `least`."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} must be a number of at least {least:g}")
        return value

    return read


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} must be a port, 0 to 65535")
    return int(text)
