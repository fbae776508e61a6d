"""An ASGI application under hypercorn, run as a program: files of a folder, and an echo for requests with a body.

    python asgi_echo.py PORT FOLDER [CERTIFICATE KEY]
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config


def application(folder: Path) -> Any:
    async def respond(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            return await _echo_messages(receive, send)
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            event = await receive()
            body += event.get("body", b"")
            more = event.get("more_body", False)
        name = scope["path"].lstrip("/")
        content = body if scope["method"] == "POST" else (folder / name).read_bytes()
        version = scope["http_version"].encode()
        fields = [(b"content-length", b"%d" % len(content)), (b"x-version", version)]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})

    return respond


async def _echo_messages(receive: Any, send: Any) -> None:
    while (event := await receive())["type"] != "websocket.disconnect":
        if event["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "websocket.send", "bytes": event.get("bytes"), "text": event.get("text")})


def main(port: str, folder: str, *pair: str) -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.accesslog = None
    config.keep_alive_timeout = 60
    if pair:
        config.certfile, config.keyfile = pair
    asyncio.run(serve(application(Path(folder)), config, mode="asgi"))


if __name__ == "__main__":
    main(*sys.argv[1:])
