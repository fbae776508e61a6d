"""All clients together, in a process of their own, so that counting spans never slows them down."""

from __future__ import annotations

import asyncio
import multiprocessing
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe

from perf.soaking.clients import Client, Tally
from perf.soaking.http2_clients import Http2Client


@dataclass(frozen=True)
class Ports:
    """Where a proxy listens; `tls` 0: it does not speak TLS, and is asked in HTTP/1.1 alone."""

    plain: int
    tls: int = 0


@dataclass(frozen=True)
class Crowd:
    """How many clients of each kind, and how long each pauses between requests."""

    keep_alive: int = 24
    fresh: int = 4
    streaming: int = 2
    tls: int = 8
    """HTTP/1.1 over TLS, kept alive."""
    http2: int = 4
    """Without TLS, several streams at a time each."""
    http2_tls: int = 4
    pause_seconds: float = 0.01


class Clients:
    """A crowd in a process of its own, from entering the context until `finish`."""

    def __init__(self, ports: Ports, crowd: Crowd, prefix: str):
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_run, args=(ports, crowd, prefix, theirs), daemon=True)

    def __enter__(self) -> Clients:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()

    def finish(self) -> Tally:
        """Lets every client finish the request that it has under way."""
        self._pipe.send("stop")
        tally: Tally = self._pipe.recv()
        self._process.join()
        return tally


def _run(ports: Ports, crowd: Crowd, prefix: str, pipe: Pipe) -> None:
    tally = asyncio.run(_crowd(ports, crowd, prefix, pipe))
    pipe.send(tally)


async def _crowd(ports: Ports, crowd: Crowd, prefix: str, pipe: Pipe) -> Tally:
    tally, stop = Tally(), asyncio.Event()
    asyncio.get_running_loop().add_reader(pipe.fileno(), stop.set)
    clients = [*_http1(ports, crowd, prefix, tally), *_http2(ports, crowd, prefix, tally)]
    await asyncio.gather(*(client.run(stop) for client in clients))
    return tally


def _http1(ports: Ports, crowd: Crowd, prefix: str, tally: Tally) -> Iterator[Client]:
    kinds = [
        ("k", crowd.keep_alive, True, "quick", None), ("f", crowd.fresh, False, "quick", None),
        ("s", crowd.streaming, True, "stream", None), ("t", crowd.tls, True, "quick", believing("http/1.1")),
    ]
    for kind, count, keeps_alive, path, tls in kinds:
        port = ports.tls if tls else ports.plain
        for number in range(count if port else 0):
            target = f"/{path}/{prefix}-{kind}{number}"
            yield Client(port, target, keeps_alive, crowd.pause_seconds, tally, tls)


def _http2(ports: Ports, crowd: Crowd, prefix: str, tally: Tally) -> Iterator[Http2Client]:
    if not ports.tls:
        return
    for number in range(crowd.http2 + crowd.http2_tls):
        tls = None if number < crowd.http2 else believing("h2")
        path = "stream" if number % 4 == 3 else "quick"
        target = f"/{path}/{prefix}-{'g' if tls else 'h'}{number}"
        yield Http2Client(ports.tls if tls else ports.plain, target, tls, crowd.pause_seconds, tally)


def believing(protocol: str) -> ssl.SSLContext:
    """Asks for a protocol and believes every certificate: they are not what is tested here."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context
