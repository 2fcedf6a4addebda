"""The process: its ports, and an end that loses no accepted request."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from components.shared.contracts.errors import ConfigError
from components.shared.serving.server.deployment import Deployment
from components.shared.serving.server.limits import Limits
from components.shared.serving.server.process import Address, Server
from tests.serving_server import FakeEngine, loaded, photo, running

PNG = {"content-type": "image/png"}


def test_an_end_answers_what_was_accepted_and_refuses_what_comes_later() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    with running(loaded(engine)) as server, ThreadPoolExecutor(4) as clients:
        waiting = [
            clients.submit(httpx.post, f"{server.url}/predict", content=photo(grey), headers=PNG)
            for grey in (10, 20, 30)
        ]
        while server.deployment.admission.n_images < 3:
            time.sleep(0.01)
        ending = threading.Thread(target=server.close)
        ending.start()
        while server.deployment.is_accepting:
            time.sleep(0.01)
        time.sleep(0.1)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/v2/health/ready")

        engine.gate.set()
        answers = [answer.result(20) for answer in waiting]
        ending.join(20)
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert {answer.headers["connection"] for answer in answers} == {"close"}


def test_a_connection_that_is_kept_open_is_answered_once_more_and_told_to_close() -> None:
    with running() as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/v2/health/ready").status_code == 200
        ending = threading.Thread(target=server.close)
        ending.start()
        while server.deployment.is_accepting:
            time.sleep(0.001)
        answer = client.get("/v2/health/ready")
        assert answer.status_code == 503
        assert answer.headers["connection"] == "close"
        ending.join(20)


def test_a_port_in_use_is_refused() -> None:
    with running() as server:

        async def start(**ports: int) -> None:
            address = Address(host="127.0.0.1", **ports)
            await Server(Deployment(loaded(), Limits()), address, "m").start()

        http, grpc = server.ports["http"], server.ports["grpc"]
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{http} cannot be opened"):
            asyncio.run(start(port=http))
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{grpc} cannot be opened"):
            asyncio.run(start(port=0, grpc_port=grpc))
