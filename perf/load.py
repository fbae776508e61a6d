"""The load: h2load at full speed, requests at a fixed rate for latency, and a holder of idle connections.

Nearly all of it is HTTP/1.1 over keep-alive connections, each of which awaits its answer before it asks again.
"""

from __future__ import annotations

import math
import re
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from perf.machine import program
from perf.processes import BenchError, Child

LOAD_TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class Destination:
    """Where a load goes and from where it is sent."""

    port: int
    directory: Path
    cpu: int | None
    pace: Path
    """The program built from pace.c."""
    scheme: str = "http"


@dataclass(frozen=True)
class Latency:
    """Quantiles of the time from the moment a request was due to its whole answer, in microseconds."""

    p50_us: float
    p99_us: float
    p999_us: float


@dataclass(frozen=True)
class LoadResult:
    """What the client saw."""

    requests: int
    failed: int
    """Requests without an answer, and answers that are no success."""
    seconds: float
    latency: Latency = Latency(math.nan, math.nan, math.nan)
    """Measured by a paced load only."""

    def __post_init__(self) -> None:
        if self.succeeded <= 0:
            raise BenchError(f"none of {self.requests} requests was answered with success")

    @property
    def succeeded(self) -> int:
        return self.requests - self.failed

    @property
    def succeeded_per_second(self) -> float:
        return self.succeeded / self.seconds


@dataclass(frozen=True)
class FullLoad:
    """`requests` over `connections` as fast as answers come, by h2load in one thread."""

    connections: int
    requests: int
    path: str = "/"
    streams: int = 0
    """Requests at a time on each connection, over HTTP/2; 0 is HTTP/1.1."""

    def warm_up(self) -> FullLoad:
        """A short load of the same kind, which fills the pools and the caches of a fresh proxy."""
        return replace(self, requests=max(2 * self.connections, self.requests // 20))

    def start(self, destination: Destination) -> Child:
        argv = [
            program("h2load"), *(["-m", str(self.streams)] if self.streams else ["--h1"]),
            "-t", "1", "-c", str(self.connections), "-n", str(self.requests),
            f"{destination.scheme}://127.0.0.1:{destination.port}{self.path}",
        ]
        return Child("h2load", argv, destination.directory, destination.cpu)

    def result(self, child: Child) -> LoadResult:
        """Waits for the end of what `start` gave."""
        child.wait(LOAD_TIMEOUT_SECONDS)
        output = child.output()
        seconds = re.search(r"^finished in ([\d.]+)(us|ms|s|m)\b", output, re.MULTILINE)
        succeeded = re.search(r"^status codes: (\d+) 2xx", output, re.MULTILINE)
        if seconds is None or succeeded is None:
            raise BenchError(f"h2load gave no result; it said:\n{child.tail()}")
        unit_seconds = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[seconds.group(2)]
        failed = self.requests - int(succeeded.group(1))
        return LoadResult(self.requests, failed, float(seconds.group(1)) * unit_seconds)


@dataclass(frozen=True)
class PacedLoad:
    """`requests` over `connections` at an even `rate` a second, by pace.c."""

    connections: int
    requests: int
    rate: int

    def warm_up(self) -> FullLoad:
        return FullLoad(self.connections, self.requests // 20)

    def start(self, destination: Destination) -> Child:
        numbers = (destination.port, self.connections, self.rate, self.requests)
        argv = [str(destination.pace), *map(str, numbers)]
        return Child("pace", argv, destination.directory, destination.cpu)

    def result(self, child: Child) -> LoadResult:
        """Waits for the end of what `start` gave."""
        child.wait(LOAD_TIMEOUT_SECONDS)
        found = re.search(r"failed=(\d+) seconds=([\d.]+) p50=(\d+) p99=(\d+) p999=(\d+)", child.output())
        if found is None:
            raise BenchError(f"pace gave no result; it said:\n{child.tail()}")
        quantiles_us = (int(text) / 1000 for text in found.groups()[2:])
        return LoadResult(self.requests, int(found.group(1)), float(found.group(2)), Latency(*quantiles_us))


Load = FullLoad | PacedLoad


class IdleConnections:
    """Keep-alive connections that have carried one request each and then say nothing."""

    REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    def __init__(self, port: int, count: int):
        self._sockets: list[socket.socket] = []
        self._port = port
        self._count = count

    def __enter__(self) -> IdleConnections:
        try:
            for _ in range(self._count):
                self._open_one()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._sockets:
            connection.close()

    def _open_one(self) -> None:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        self._sockets.append(connection)
        connection.sendall(self.REQUEST)
        read_response(connection)

    def count_open(self) -> int:
        """How many the proxy has not closed."""
        return sum(is_open(connection) for connection in self._sockets)


def read_response(connection: socket.socket) -> None:
    """Reads one answer that has a Content-Length, to its last byte."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += receive(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length:\s*(\d+)", head, re.IGNORECASE)
    if not head.startswith(b"HTTP/1.1 200") or length is None:
        raise BenchError(f"an idle connection got an unexpected answer: {head[:200]!r}")
    missing = int(length.group(1)) - len(body)
    while missing > 0:
        missing -= len(receive(connection))


def receive(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise BenchError("the proxy closed a connection before it had answered")
    return data


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
