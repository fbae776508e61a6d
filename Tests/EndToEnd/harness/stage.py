"""The stage of a test: it sets up peers and the balancer, and clears them in reverse order.

Clients go first, then the balancer, then what it talks to, so that the balancer always drains with
its peers still there, as it would in life.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

from harness.backends import BlackHole, Script, ScriptedBackend
from harness.balancer import Balancer
from harness.collector import Behaviour, Collector
from harness.nginx import Nginx
from harness.wire import Connection


class Closeable(Protocol):
    def close(self) -> None: ...


class Addressed(Protocol):
    """Something that can stand behind `--backend`."""

    @property
    def address(self) -> str: ...


Peer = TypeVar("Peer", bound=Closeable)


class Stage:
    def __init__(self, binary: Path, directory: Path) -> None:
        self.binary = binary
        self.directory = directory
        self._cleanup = ExitStack()
        self._folders = 0

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.__exit__(kind, error, trace)

    def keep(self, peer: Peer) -> Peer:
        """Closes `peer` when the stage is cleared."""
        return self._cleanup.enter_context(closing(peer))

    def folder(self) -> Path:
        """A new empty folder."""
        self._folders += 1
        folder = self.directory / str(self._folders)
        folder.mkdir()
        return folder

    def backend(self, *scripts: Script, port: int = 0) -> ScriptedBackend:
        return self.keep(ScriptedBackend(*scripts, port=port))

    def black_hole(self) -> BlackHole:
        return self.keep(BlackHole())

    def nginx(self, **files: bytes) -> Nginx:
        return self.keep(Nginx(self.folder(), files))

    def collector(self, *behaviours: Behaviour, port: int = 0, path: str = "/v1/traces") -> Collector:
        return self.keep(Collector(*behaviours, port=port, path=path))

    def balancer(
        self,
        backends: Addressed | Sequence[Addressed | str],
        *flags: str,
        collector: Collector | str | None = None,
        workers: int | None = 1,
        address: str | None = "127.0.0.1",
        environment: dict[str, str] | None = None,
        wrapper: Sequence[str] = (),
        expects_deaths: bool = False,
    ) -> Balancer:
        """Starts a balancer in front of `backends`, tracing to `collector` when there is one."""
        started = Balancer(
            self.binary,
            self.folder(),
            [*backend_flags(backends), *tracing_flags(collector, flags), *flags],
            workers=workers,
            address=address,
            environment=environment,
            wrapper=wrapper,
            expects_deaths=expects_deaths,
        )
        return self.keep(started)

    def client(self, balancer: Balancer) -> Connection:
        """A connection to the balancer."""
        return self.keep(balancer.connect())


def backend_flags(backends: Addressed | Sequence[Addressed | str]) -> list[str]:
    listed = backends if isinstance(backends, Sequence) else [backends]
    addresses = [item if isinstance(item, str) else item.address for item in listed]
    return [flag for address in addresses for flag in ("--backend", address)]


def tracing_flags(collector: Collector | str | None, flags: Sequence[str]) -> list[str]:
    """Batches go out quickly unless `flags` says otherwise, so that tests need not wait for spans."""
    if collector is None:
        return []
    endpoint = collector if isinstance(collector, str) else collector.endpoint
    delay = [] if "--otel-batch-delay" in flags else ["--otel-batch-delay", "0.1"]
    return ["--otel-endpoint", endpoint, *delay]
