"""Load on a server, from a process of its own: clients that ask one image after the other.

`python -m tests.bench.server_load PORT CLIENTS SECONDS IMAGE...` prints one line of JSON.
"""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from pipelines.sources import ROOT

_HEADERS = {"content-type": "image/jpeg"}


@dataclass
class Load:
    """What clients saw.

    Attributes:
        seconds: from the first request to the last answer.
        latencies: seconds of each answered request.
        decisions: of each image, by its number, the different decisions.
        statuses: number of answers by status; "lost" counts requests that were sent over an open
            connection and got no answer.
        refused: connections that were not opened, of which a client knows that nothing was sent.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    decisions: dict[int, list[str]] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    refused: int = 0

    @property
    def images_per_second(self) -> float:
        """Answered requests per second."""
        return self.statuses.get("200", 0) / self.seconds

    def milliseconds(self, quantile: float) -> float:
        """Quantile of the latency of answered requests."""
        return float(np.quantile(self.latencies, quantile) * 1000)


def start_load(
    port: int, clients: int, seconds: float, images: Sequence[Path]
) -> "subprocess.Popen[str]":
    """Start the clients in a process of their own; `finish_load` waits for it."""
    words = ["-m", "tests.bench.server_load", port, clients, seconds, *images]
    return subprocess.Popen(
        [sys.executable, *map(str, words)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def finish_load(process: "subprocess.Popen[str]") -> Load:
    """Return what the clients saw."""
    out, _ = process.communicate()
    found = json.loads(out)
    found["decisions"] = {int(image): names for image, names in found["decisions"].items()}
    return Load(**found)


def _main(port: int, clients: int, seconds: float, files: Sequence[str]) -> Load:
    images = [Path(file).read_bytes() for file in files]
    load, lock = Load(), threading.Lock()
    started = time.monotonic()
    threads = [
        threading.Thread(target=_client, args=(port, number, started + seconds, images, load, lock))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds = time.monotonic() - started
    return load


def _client(
    port: int, number: int, until: float, images: list[bytes], load: Load, lock: threading.Lock
) -> None:
    """Ask until the time is over, or nobody listens any more."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    while time.monotonic() < until:
        number = (number + 1) % len(images)
        status, decision = "lost", ""
        started = time.monotonic()
        try:
            if connection.sock is None:
                connection.connect()
        except OSError:
            with lock:
                load.refused += 1
            return
        try:
            connection.request("POST", "/predict", images[number], _HEADERS)
            answer = connection.getresponse()
            body = json.loads(answer.read())
            status, decision = str(answer.status), str(body.get("decision", ""))
        except (OSError, http.client.HTTPException):
            connection.close()

        with lock:
            load.statuses[status] = load.statuses.get(status, 0) + 1
            if status == "200":
                load.latencies.append(time.monotonic() - started)
                names = load.decisions.setdefault(number, [])
                if decision not in names:
                    names.append(decision)
    connection.close()


if __name__ == "__main__":
    _port, _clients, _seconds, *_files = sys.argv[1:]
    print(json.dumps(asdict(_main(int(_port), int(_clients), float(_seconds), _files))))
