"""The demo's data and backbone in the object store, for `submit --demo` and `smoke`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.shared.storage import Store
from pipelines.demo.backbone import write_demo_backbone
from pipelines.demo.dataset import write_demo_data
from pipelines.upload_data.selection import select
from pipelines.upload_data.transfer import Transferred, transfer

PREFIX = "streetvision/demo"
FOLDER = Path("runs/demo")  # as `run --demo` has it
_PARTS = ("data", "backbone")


@dataclass(frozen=True)
class DemoUpload:
    """n_files, n_bytes: of data and backbone; sent_bytes: those that were not there yet."""

    n_files: int
    n_bytes: int
    sent_bytes: int


def demo_values(bucket: str) -> dict[str, Any]:
    """Return the parameters of a run of the demo from that bucket."""
    return {"recipe": "demo", **{part: f"s3://{bucket}/{PREFIX}/{part}" for part in _PARTS}}


def upload_demo(
    store: Store, bucket: str, folder: Path = FOLDER, *, quiet: bool = False
) -> DemoUpload:
    """Generate the demo's data and backbone in `folder`, and make the store hold the same.

    Other objects below streetvision/demo/data and streetvision/demo/backbone are removed. Raises
    DataError where `folder` holds something else, and the store's errors.
    """
    write_demo_data(folder / "data")
    write_demo_backbone(folder / "backbone")

    selections = {part: select(folder / part) for part in _PARTS}
    done: list[Transferred] = []

    for part, selection in selections.items():
        done.append(
            transfer(store, selection.files, bucket, f"{PREFIX}/{part}", delete=True, quiet=quiet)
        )

    return DemoUpload(
        n_files=sum(len(selection.files) for selection in selections.values()),
        n_bytes=sum(selection.n_bytes for selection in selections.values()),
        sent_bytes=sum(one.sent_bytes for one in done),
    )


def delete_demo(store: Store, bucket: str) -> int:
    """Remove the demo's objects; return how many there were."""
    objects = [item for part in _PARTS for item in store.list(bucket, f"{PREFIX}/{part}/")]
    for item in objects:
        store.delete(bucket, item.key)
    return len(objects)
