"""Clients that account for every request: what was asked, and what became of it.

No request is sent twice: a real client may repeat one that failed, and that is exactly what would hide the failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import ssl
import time
from dataclasses import dataclass, field

ANSWER_TIMEOUT_SECONDS = 20


class Failure(enum.Enum):
    """How a request went without its answer."""

    REFUSED = "connection refused"
    RACE = "kept connection closed as the next request came"
    CUT = "connection ended before or in the answer"
    STATUS = "answer other than 200"
    TIMEOUT = "no answer in time"


@dataclass(frozen=True)
class Failed:
    target: str
    failure: Failure
    at_seconds: float
    """Of the monotonic clock."""
    detail: str


@dataclass
class Tally:
    """What all clients of a process saw."""

    answered: list[str] = field(default_factory=list)
    """Targets that were answered with 200 and the whole body."""
    failed: list[Failed] = field(default_factory=list)
    connections: int = 0
    told_to_close: int = 0
    """Answers with `Connection: close` to a client that wanted to go on."""
    told_unprocessed: int = 0
    """Streams that a GOAWAY or REFUSED_STREAM declared untouched, and that were asked again."""

    def fail(self, target: str, failure: Failure, detail: str) -> None:
        self.failed.append(Failed(target, failure, time.monotonic(), detail))


class Client:
    """Asks one thing after the other; targets carry a number, so that each request is known by its own."""

    def __init__(
        self, port: int, target: str, keeps_alive: bool, pause_seconds: float, tally: Tally,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._port = port
        self._tls = tls
        self._target = target
        self._keeps_alive = keeps_alive
        self._pause_seconds = pause_seconds
        self._tally = tally
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._is_reused = False

    async def run(self, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await self._ask(f"{self._target}-{number}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._pause_seconds)
        self._drop()

    async def _ask(self, target: str) -> None:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                await self._exchange(target)
        except TimeoutError:
            self._fail(target, Failure.TIMEOUT, "")
        except ConnectionRefusedError as error:
            self._fail(target, Failure.REFUSED, str(error))
        except (OSError, asyncio.IncompleteReadError) as error:
            is_silent = not (isinstance(error, asyncio.IncompleteReadError) and error.partial)
            self._fail(target, Failure.RACE if self._is_reused and is_silent else Failure.CUT, repr(error))

    async def _exchange(self, target: str) -> None:
        reader, writer = await self._connected()
        option = "" if self._keeps_alive else "Connection: close\r\n"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: soak\r\n{option}\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        await self._read_body(reader, head)
        if " 200 " in head.split("\r\n", 1)[0]:
            self._tally.answered.append(target)
        else:
            self._fail(target, Failure.STATUS, head.split("\r\n", 1)[0])
        self._is_reused = True
        if "\r\nconnection: close" in head:
            self._tally.told_to_close += self._keeps_alive
            self._drop()

    async def _read_body(self, reader: asyncio.StreamReader, head: str) -> None:
        self._is_reused = False  # From here on, an end is a cut and no race.
        if "transfer-encoding: chunked" in head:
            while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
        else:
            length = head.partition("content-length:")[2].split("\r\n", 1)[0]
            await reader.readexactly(int(length))

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._is_reused = False
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls)
            self._tally.connections += 1
        return self._streams

    def _fail(self, target: str, failure: Failure, detail: str) -> None:
        self._tally.fail(target, failure, detail)
        self._drop()

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
