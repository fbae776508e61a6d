#!/usr/bin/env python3
"""A small web server to balance to: answers after a moment, and says who answered.

    scripts/sample_backend.py NAME [PORT]

Prints the port it listens on, which is a free one unless given.

    /          a greeting              /slow      the same after 150 ms
    /stream    a body in chunks        /missing   404
    /broken    500                     POST       says how much it received
"""

from __future__ import annotations

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STATUS_BY_PATH = {"/missing": 404, "/broken": 500}
DELAY_S_BY_PATH = {"/slow": 0.150, "/stream": 0.010}
USUAL_DELAY_S = 0.004


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    name = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        time.sleep(DELAY_S_BY_PATH.get(path, USUAL_DELAY_S))
        if path == "/stream":
            self._stream()
        else:
            self._answer(STATUS_BY_PATH.get(path, 200), f"{self.name} answers {path}\n".encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(200, f"{self.name} received {len(body)} bytes\n".encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(1, 4):
            time.sleep(0.020)
            piece = f"{self.name} sends piece {number}\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing: the balancer's traces are what is to be seen."""


def main() -> None:
    Handler.name = sys.argv[1]
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        print(server.server_port, flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
