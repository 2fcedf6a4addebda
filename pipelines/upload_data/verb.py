"""The verb `upload-data`: from a folder on this machine to an address that `submit` takes."""

import argparse
import sys
from pathlib import Path

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from pipelines.cli.api_options import SubParsers, add_store_options, api_parser
from pipelines.cli.output import INTERRUPTED

_NAMED = 3
_ABOUT = (
    "A data set is a folder with labels.csv, or Parquet; a backbone has config.json and"
    " safetensors. What is there\nwith the same digest is not sent again, so that the same command"
    " continues an interrupted upload.\n\nexamples:\n  python -m pipelines upload-data photos"
    " s3://streetvision/data/photos\n  python -m pipelines upload-data dinov2-small"
    f" s3://streetvision/backbones/dinov2-small\n\nThe store is that of {Variable.S3_ENDPOINT},"
    " _ACCESS_KEY and _SECRET_KEY, else that of the cluster's pipeline\nroot; from outside the"
    " cluster forward its port and give --store-endpoint."
)


def add_upload_data(parsers: SubParsers) -> None:
    """Add the verb to the command line's sub-parsers."""
    parser = api_parser(
        parsers,
        "upload-data",
        "copy a data set or a backbone to the object store, from where a run reads it",
        upload_data,
        _ABOUT,
    )
    parser.add_argument(
        "folder", type=Path, help="data set (labels.csv or Parquet) or backbone (safetensors)"
    )
    parser.add_argument("address", help="s3://bucket/prefix; minio:// is the same")
    parser.add_argument(
        "--delete",
        action="store_true",
        help="remove what is below the address but not in the folder",
    )
    add_store_options(parser)


def upload_data(parsed: argparse.Namespace) -> None:
    """Upload the folder; exit code 130 after Ctrl-C."""
    from pipelines.upload_data.location import find_store
    from pipelines.upload_data.selection import select
    from pipelines.upload_data.transfer import transfer

    bucket, prefix = split_address(parsed.address)
    selection = select(parsed.folder)
    print(
        f"{selection.kind}: {_files(len(selection.files))}, {megabytes(selection.n_bytes)}",
        flush=True,
    )
    if selection.left_out:
        print(f"not sent, since no step reads it: {_named(selection.left_out)}")

    try:
        done = transfer(
            find_store(parsed).store, selection.files, bucket, prefix, delete=parsed.delete
        )
    except KeyboardInterrupt:
        print(
            "interrupted; what was sent is whole, and the same command sends the rest",
            file=sys.stderr,
        )
        sys.exit(INTERRUPTED)

    removed = f", {done.n_deleted} removed" if parsed.delete else ""
    print(
        f"{_files(done.n_sent)} sent ({megabytes(done.sent_bytes)}), {done.n_kept} were"
        f" there{removed}; all verified"
    )
    if done.stale:
        print(
            f"{len(done.stale)} other object(s) stay below the address: {_named(done.stale)};"
            " --delete removes them"
        )
    print(f"for submit: --param {selection.kind}=s3://{bucket}/{prefix}")


def split_address(address: str) -> tuple[str, str]:
    """Bucket and prefix of s3://bucket/prefix or minio://bucket/prefix.

    Raises ConfigError, for an empty prefix too.
    """
    scheme, separator, rest = address.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme not in ("s3", "minio") or not separator or not bucket or not prefix.strip("/"):
        raise ConfigError(
            f"address={address!r} must be s3://bucket/prefix: below a bucket there are runs, too"
        )
    return bucket, prefix.strip("/")


def megabytes(n_bytes: int) -> str:
    """A size as a person reads it."""
    return f"{n_bytes / 1e6:.1f} MB"


def _files(n: int) -> str:
    return f"{n} file" if n == 1 else f"{n} files"


def _named(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_NAMED]) + (
        f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    )
