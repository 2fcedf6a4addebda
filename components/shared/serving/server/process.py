"""The life of the server's process: ports open when it can answer, and close without a loss."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvicorn

from components.shared.contracts.errors import ConfigError, one_line
from components.shared.contracts.listing import say_json
from components.shared.serving.server.connections import patient_for
from components.shared.serving.server.deployment import Deployment, Loaded
from components.shared.serving.server.follow import Follower
from components.shared.serving.server.limits import MOST_CONNECTIONS, Limits
from components.shared.serving.server.model import BundleModel, BundlePlane
from components.shared.serving.server.rest import application
from components.shared.serving.server.rpc import rpc_server
from components.shared.serving.stage2 import Stage2
from components.shared.storage.registry import BundleRegistry

if TYPE_CHECKING:
    from components.shared.serving.server.loading import Loader

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_KEEP_ALIVE_SECONDS = 75  # longer than the 60 s of common proxies, which then close first
_BACKLOG = 2048
# After SIGTERM, in which a connection that was kept open may still bring a request.
_LAST_REQUESTS_SECONDS = 1.0
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the server listens. port, grpc_port: 0 takes a free one; grpc_port None: no gRPC."""

    host: str = "0.0.0.0"  # noqa: S104  # a server in a container
    port: int = 8080
    grpc_port: int | None = 8081


@dataclass(frozen=True, kw_only=True)
class Followed:
    """The registry whose champion is served, and what loads it; seconds: between two looks."""

    registry: BundleRegistry
    loader: "Loader"
    seconds: float


def serve(
    loaded: Loaded,
    address: Address,
    limits: Limits,
    *,
    name: str,
    stage2: Stage2 | None = None,
    followed: Followed | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, and return after the last answer.

    Args:
        loaded: the bundle that answers first.
        address: where to listen.
        limits: what is accepted.
        name: of the model in the protocol v2.
        stage2: who answers what the bundle defers.
        followed: the registry whose new champions take the bundle's place.

    Raises:
        ConfigError: a port cannot be opened.
    """

    async def until_signalled() -> None:
        server = Server(Deployment(loaded, limits, stage2), address, name, followed)
        with _ended() as ended:
            ports = await server.start()
            say_json({"serving": name, "digest": loaded.digest, "form": loaded.form, **ports})
            await ended.wait()
            await server.stop()

    asyncio.run(until_signalled())


class Server:
    """HTTP and gRPC in front of a deployment."""

    def __init__(
        self, deployment: Deployment, address: Address, name: str, followed: Followed | None = None
    ) -> None:
        """Take what answers, where to listen, the model's name, and what is followed."""
        self.deployment, self._address = deployment, address
        plane = BundlePlane(BundleModel(name, deployment), deployment)
        self._web = _Web(application(deployment, plane), deployment.limits)
        self._rpc = rpc_server(deployment, plane)
        self._followed = followed
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> dict[str, int]:
        """Open the ports, and return them: "http", and "grpc" where it is served.

        Raises:
            ConfigError: a port cannot be opened.
        """
        listener = _listener(self._address)
        ports = {"http": listener.getsockname()[1]}
        if self._address.grpc_port is not None:
            try:
                ports["grpc"] = _open_rpc(self._rpc, self._address.host, self._address.grpc_port)
            except ConfigError:
                listener.close()
                raise
            await self._rpc.start()

        serving = asyncio.create_task(self._web.serve([listener]))
        self._tasks = [serving]
        if self._followed is not None:
            self._tasks.append(asyncio.create_task(self._follower(self._followed).run()))
        while not self._web.started and not serving.done():
            await asyncio.sleep(_LOOK_SECONDS)
        return ports

    async def stop(self) -> None:
        """Accept nothing more, answer what was accepted, and close."""
        await self._web.stop_listening()
        # Only now are connections closed with their answer: their clients would open others.
        self.deployment.is_accepting = False
        serving, *others = self._tasks
        for task in others:
            task.cancel()

        seconds = self.deployment.limits.shutdown_seconds
        await asyncio.gather(self._web.drain(seconds, serving), self._rpc.stop(seconds))
        await asyncio.gather(*others, return_exceptions=True)
        await self.deployment.close()

    def _follower(self, followed: Followed) -> Follower:
        return Follower(
            followed.registry, self.deployment, followed.loader.registered, followed.seconds
        )


class _Web(uvicorn.Server):
    """uvicorn, whose signals are handled by the process, and which loses no request at its end."""

    def __init__(self, app: Any, limits: Limits) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=patient_for(limits.client_seconds),
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",  # not a line for each malformed request
                access_log=False,
                server_header=False,
                backlog=_BACKLOG,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, round(limits.shutdown_seconds)),
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def stop_listening(self) -> None:
        """Accept no more connections; those that the system has accepted already are taken over."""
        loop, state = asyncio.get_running_loop(), self.server_state
        protocol: Any = self.config.http_protocol_class
        for server in self.servers:
            waiting = [part for listener in server.sockets for part in _accepted(listener)]
            server.close()
            for connection in waiting:
                await loop.connect_accepted_socket(
                    lambda: protocol(config=self.config, server_state=state, app_state={}),
                    connection,
                )

    async def drain(self, seconds: float, serving: "asyncio.Task[None]") -> None:
        """Answer what comes over the open connections, and end.

        uvicorn alone would close a connection between two requests, with the second one unread.
        """
        await asyncio.sleep(_LOOK_SECONDS)  # for connections that were just accepted

        loop = asyncio.get_running_loop()
        last, latest = loop.time(), loop.time() + seconds
        n_requests = self.server_state.total_requests
        while self.server_state.connections and loop.time() < latest:
            if self.server_state.tasks or self.server_state.total_requests != n_requests:
                last, n_requests = loop.time(), self.server_state.total_requests
            if loop.time() - last > _LAST_REQUESTS_SECONDS:
                break
            await asyncio.sleep(_LOOK_SECONDS)

        self.should_exit = True
        await serving


def _accepted(listener: Any) -> Iterator[socket.socket]:
    """Yield the connections that the system has accepted for a socket; closing would reset them."""
    with listener.dup() as copy:
        copy.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = copy.accept()
                connection.setblocking(False)
                yield connection


@contextlib.contextmanager
def _ended() -> Iterator[asyncio.Event]:
    """Yield what is set by a signal that asks the process to end."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        loop.add_signal_handler(number, ended.set)
    try:
        yield ended
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def _listener(address: Address) -> socket.socket:
    """Open the port of HTTP. Raises ConfigError."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # The protocol is named, because asyncio sends an answer's parts without delay only then.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"{address.host}:{address.port} cannot be opened: {one_line(error)}"
        ) from error
    return listener


def _open_rpc(rpc: Any, host: str, port: int) -> int:
    """Open the port of gRPC and return it. Raises ConfigError."""
    shown_host = f"[{host}]" if ":" in host else host
    try:
        found = rpc.add_insecure_port(f"{shown_host}:{port}")
    except RuntimeError as error:
        raise ConfigError(f"{host}:{port} cannot be opened: {one_line(error)}") from error
    return int(found)
