"""The load: h2load at full speed, requests at a fixed rate for latency, and a holder of idle connections.

Connections are kept alive, but for those of handshakes.c. One of HTTP/1.1 awaits its answer before it asks again, one
of HTTP/2 has a fixed number of requests in flight.
"""

from __future__ import annotations

import math
import re
import socket
import ssl
from dataclasses import dataclass, replace
from pathlib import Path

from perf import http2
from perf.machine import program
from perf.origin import TLS13_CIPHER
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
    handshakes: Path
    """The program built from handshakes.c."""
    is_tls: bool = False


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
    resumed: int = 0
    """Connections for which the server accepted a TLS session of before."""
    tls: str = ""
    """Version and cipher, when the client came through TLS."""

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
            "--tls13-ciphers", TLS13_CIPHER, "--groups", "X25519",
            f"{'https' if destination.is_tls else 'http'}://127.0.0.1:{destination.port}{self.path}",
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
        tls = re.search(r"^TLS Protocol: (\S+)\nCipher: (\S+)", output, re.MULTILINE)
        return LoadResult(self.requests, failed, float(seconds.group(1)) * unit_seconds,
                          tls=" ".join(tls.groups()) if tls else "")


@dataclass(frozen=True)
class PacedLoad:
    """`requests` over `connections` at an even `rate` a second, by pace.c."""

    connections: int
    requests: int
    rate: int

    def warm_up(self) -> FullLoad:
        return FullLoad(self.connections, max(2 * self.connections, self.requests // 20))

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


@dataclass(frozen=True)
class HandshakeLoad:
    """`requests` TLS connections with one request each, `connections` of them at a time, by handshakes.c."""

    connections: int
    requests: int
    is_resuming: bool
    version: str = "1.3"

    def warm_up(self) -> HandshakeLoad:
        return replace(self, requests=max(2 * self.connections, self.requests // 20))

    def start(self, destination: Destination) -> Child:
        argv = [str(destination.handshakes), str(destination.port), str(self.connections), str(self.requests),
                "resumed" if self.is_resuming else "full", self.version]
        return Child("handshakes", argv, destination.directory, destination.cpu)

    def result(self, child: Child) -> LoadResult:
        """Waits for the end of what `start` gave; refuses a run whose handshakes were not of the wanted kind."""
        child.wait(LOAD_TIMEOUT_SECONDS)
        found = re.search(r"answered=\d+ failed=(\d+) resumed=(\d+) seconds=([\d.]+) cipher=(\S+) version=(\S+)",
                          child.output())
        if found is None:
            raise BenchError(f"handshakes gave no result; it said:\n{child.tail()}")
        failed, resumed = int(found[1]), int(found[2])
        wanted = self.requests - failed - 1 if self.is_resuming else 0
        if resumed < wanted or (resumed > 0 and not self.is_resuming):
            raise BenchError(f"{resumed} of {self.requests} connections resumed a session instead of {wanted}")
        return LoadResult(self.requests, failed, float(found[3]), resumed=resumed, tls=f"{found[5]} {found[4]}")


Load = FullLoad | PacedLoad | HandshakeLoad


class IdleConnections:
    """Connections that have carried one request each, by HTTP/1.1 or HTTP/2, and then say nothing."""

    REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    def __init__(self, port: int, count: int, is_tls: bool = False, is_h2: bool = False):
        self._sockets: list[socket.socket] = []
        self._port = port
        self._count = count
        self._is_h2 = is_h2
        self._context = client_context(is_h2) if is_tls else None

    def __enter__(self) -> IdleConnections:
        try:
            for _ in range(self._count):
                self._open_one()
        except (OSError, http2.Http2Error) as error:
            self.__exit__()
            raise BenchError(f"idle connection {len(self._sockets)} of {self._count}: {error}") from error
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._sockets:
            connection.close()

    def _open_one(self) -> None:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        if self._context:
            connection = self._context.wrap_socket(connection)
        self._sockets.append(connection)
        if self._is_h2:
            http2.get_root(connection, is_tls=self._context is not None)
        else:
            connection.sendall(self.REQUEST)
            read_response(connection)

    def count_open(self) -> int:
        """How many the proxy has not closed."""
        return sum(is_open(connection) for connection in self._sockets)


def client_context(is_h2: bool) -> ssl.SSLContext:
    """TLS 1.3 with nobody's identity checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2" if is_h2 else "http/1.1"])
    return context


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
        while connection.recv(4096):
            pass
        return False
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False
