"""Record of each epoch's metrics: `metrics.csv` and TensorBoard scalars.

Both are byte-identical for equal histories.
"""

from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from components.shared.contracts.tables import write_table


def write_metrics(directory: Path, history: list[dict[str, float]]) -> None:
    """Write `metrics.csv` (one row per epoch) and `tensorboard/` anew from the whole history."""
    columns = list(history[0])
    rows = ([f"{row[name]:.9g}" for name in columns] for row in history)
    write_table(directory / "metrics.csv", columns, rows, for_people=True)
    _write_scalars(directory / "tensorboard", history)


def _write_scalars(directory: Path, history: list[dict[str, float]]) -> None:
    """Write one event file, with epoch numbers as its times.

    SummaryWriter would put clock, host name and pid into the bytes.
    """
    directory.mkdir(exist_ok=True)

    with (directory / "events.out.tfevents.0.training").open("wb") as stream:
        writer = RecordWriter(stream)
        writer.write(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())

        for row in history:
            epoch = int(row["epoch"])
            values = [
                Summary.Value(tag=tag, simple_value=value)
                for tag, value in row.items()
                if tag != "epoch"
            ]

            event = Event(wall_time=float(epoch), step=epoch, summary=Summary(value=values))
            writer.write(event.SerializeToString())
