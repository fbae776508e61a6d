"""The backend of the soak: quick answers and slow streams, kept alive for ever. Runs in a process of its own.

    /quick/…    a few bytes, at once or after some milliseconds, by turns
    /stream/…   64 KiB in chunks over half a second: always some of these are under way when something happens
"""

from __future__ import annotations

import asyncio
import multiprocessing
from multiprocessing.connection import Connection as Pipe

PIECES = 16
PIECE = b"%x\r\n" % 4096 + b"x" * 4096 + b"\r\n"
PIECE_PAUSE_SECONDS = 0.03
SLOW_SECONDS = 0.008


class Origin:
    """Listens on `port` while the context is entered."""

    def __init__(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_run, args=(theirs,), daemon=True)

    def __enter__(self) -> Origin:
        self._process.start()
        self.port: int = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def targets(self) -> set[str]:
        """Of every request that came here."""
        self._pipe.send("targets")
        targets: set[str] = self._pipe.recv()
        return targets


def _run(pipe: Pipe) -> None:
    asyncio.run(_serve(pipe))


async def _serve(pipe: Pipe) -> None:
    targets: set[str] = set()

    def report() -> None:
        pipe.recv()
        pipe.send(targets)

    asyncio.get_running_loop().add_reader(pipe.fileno(), report)
    server = await asyncio.start_server(
        lambda reader, writer: _connection(reader, writer, targets), "127.0.0.1", 0, backlog=1024)
    pipe.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def _connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, targets: set[str]) -> None:
    count = 0
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            count += 1
            targets.add(head.split(b" ", 2)[1].decode())
            if head.startswith(b"GET /stream/"):
                await _stream(writer)
            else:
                if count % 2:
                    await asyncio.sleep(SLOW_SECONDS)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nquick\n")
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def _stream(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(PIECES):
        writer.write(PIECE)
        await writer.drain()
        await asyncio.sleep(PIECE_PAUSE_SECONDS)
    writer.write(b"0\r\n\r\n")
