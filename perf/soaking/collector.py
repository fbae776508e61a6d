"""Takes OTLP/HTTP posts and keeps their bodies in a file, to be decoded when the load is over."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

LENGTH_BYTES = 4


class Collector:
    """Listens on `port` while the context is entered; `bodies` may be read afterwards too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_run, args=(path, theirs), daemon=True)

    def __enter__(self) -> Collector:
        self._process.start()
        self.port: int = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def bodies(self) -> Iterator[bytes]:
        """Every post's body, in the order in which they were answered."""
        with self._path.open("rb") as file:
            while length := file.read(LENGTH_BYTES):
                yield file.read(int.from_bytes(length))


def _run(path: Path, pipe: Pipe) -> None:
    asyncio.run(_serve(path, pipe))


async def _serve(path: Path, pipe: Pipe) -> None:
    with path.open("wb", buffering=0) as file:

        async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    body = await _body(reader, writer)
                    file.write(len(body).to_bytes(LENGTH_BYTES) + body)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(connection, "127.0.0.1", 0, limit=1 << 20)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()


async def _body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    if "expect: 100-continue" in head:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    length = head.partition("content-length:")[2].split("\r\n", 1)[0]
    return await reader.readexactly(int(length))
