"""Backends that do exactly what a test tells them to.

A script is a function that gets one accepted `Connection` and plays the backend on it: receive,
send, wait, close, reset. Each connection runs its script in a thread of its own. A script that
returns leaves its connection open until the backend stops, unless it closed it.

The peer closing a connection ends its script quietly, and this end closes too, as real servers do:
that is how idle connections end. Any other exception in a script fails the test when the stage is
cleared.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from harness import message
from harness.waiting import PATIENCE_S, wait_until
from harness.wire import Connection, PeerClosed, Request

Script = Callable[["BackendConnection"], None]
Responder = Callable[[Request], bytes]


class Notebook(Protocol):
    """Where a connection's requests are written down."""

    def note(self, request: Request) -> None: ...


class BackendConnection(Connection):
    """A connection a backend accepted: its number, counted from 0, and the requests it read."""

    def __init__(self, sock: socket.socket, backend: Notebook, index: int) -> None:
        super().__init__(sock, timeout_s=30)
        self.backend = backend
        self.index = index
        self.ended = threading.Event()
        """Set when the script has returned."""

    def receive_request(self) -> Request:
        request = super().receive_request()
        self.backend.note(request)
        return request

    def wait_for_end(self) -> None:
        """Reads on until the balancer ends the connection, by FIN or RST, and then closes it."""
        try:
            self.receive_to_end()
        except ConnectionResetError:
            pass
        self.close()


class ScriptedBackend:
    """Listens on an ephemeral port; connection n runs script n, and the last one from then on."""

    def __init__(self, *scripts: Script, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> None:
        self._scripts = scripts or (serve(hello),)
        self._listener = _listen(port, family)
        self._prepare(self._listener.getsockname()[1])

    def _prepare(self, port: int) -> None:
        self.port = port
        self.connections: list[BackendConnection] = []
        self.requests: list[Request] = []
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._changed = threading.Condition()
        self._start(self._accept_loop)

    @property
    def address(self) -> str:
        """What follows `--backend`."""
        return f"127.0.0.1:{self.port}"

    # What tests look at

    def note(self, request: Request) -> None:
        """Remembers a request that a script has read whole."""
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    def wait_for_connections(self, count: int) -> list[BackendConnection]:
        """Waits until at least `count` connections were accepted."""
        self._wait(lambda: len(self.connections) >= count, f"{count} connections")
        return self.connections

    def wait_for_requests(self, count: int) -> list[Request]:
        """Waits until scripts have read at least `count` requests."""
        self._wait(lambda: len(self.requests) >= count, f"{count} requests")
        return self.requests

    @property
    def bytes_received(self) -> int:
        return sum(len(connection.received) for connection in self.connections)

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        with self._changed:
            met = self._changed.wait_for(condition, PATIENCE_S)
        assert met, f"the backend waited for {what}, got {self.requests} on {self.connections}"

    # Running

    def stop_listening(self) -> None:
        """From now on the port refuses connections; those that exist go on."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # stopped before
        self._listener.close()

    def close(self) -> None:
        """Ends everything, and raises the first error that a script met."""
        self.stop_listening()
        for connection in self.connections:
            connection.abort()
        for thread in list(self._threads):
            thread.join(PATIENCE_S)
        for connection in self.connections:
            connection.close()
        if self._errors:
            raise self._errors[0]

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept_loop(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return  # the listener was closed
            self._adopt(sock)

    def _adopt(self, sock: socket.socket) -> None:
        with self._changed:
            connection = BackendConnection(sock, self, len(self.connections))
            self.connections.append(connection)
            self._changed.notify_all()
        script = self._scripts[min(connection.index, len(self._scripts) - 1)]
        self._start(lambda: self._run(script, connection))

    def _run(self, script: Script, connection: BackendConnection) -> None:
        try:
            script(connection)
        except (PeerClosed, ConnectionError):
            connection.close()
        except OSError as error:
            if connection.sock.fileno() >= 0:
                self._errors.append(error)
        except Exception as error:
            self._errors.append(error)
        finally:
            connection.ended.set()


class UnixBackend(ScriptedBackend):
    """A scripted backend on a Unix socket."""

    def __init__(self, path: Path, *scripts: Script) -> None:
        self._scripts = scripts or (serve(hello),)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(128)
        self._path = path
        self._prepare(0)

    @property
    def address(self) -> str:
        return f"unix:{self._path}"


class BlackHole:
    """An address on which connecting never ends: a listener whose accept queue is full.

    Linux then drops further SYNs, as a dead host behind a silent firewall would.
    """

    def __init__(self) -> None:
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._fillers: list[socket.socket] = []
        wait_until(self._fill, "the accept queue to fill up")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _fill(self) -> bool:
        filler = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        filler.settimeout(0.2)
        self._fillers.append(filler)
        try:
            filler.connect(("127.0.0.1", self.port))
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        for sock in [*self._fillers, self._listener]:
            sock.close()


def _listen(port: int, family: socket.AddressFamily) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
    listener.listen(1024)
    return listener


def refused_port() -> int:
    """A port on which nobody listens: it was free a moment ago, and nothing is bound to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


# Scripts


def serve(respond: Responder) -> Script:
    """Answers each request on the connection, in order, until the peer closes it."""

    def script(connection: BackendConnection) -> None:
        while True:
            connection.send(respond(connection.receive_request()))

    return script


def serve_once(answer: bytes) -> Script:
    """Answers the first request with `answer` and closes."""
    return answer_then(answer, BackendConnection.close)


def answer_then(first: bytes, after: Script) -> Script:
    """Answers the first request with `first`; `after` plays on from there."""

    def script(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(first)
        after(connection)

    return script


def reset_at_once(connection: BackendConnection) -> None:
    """Reads one request and resets the connection instead of answering."""
    connection.receive_request()
    connection.reset()


def close_at_once(connection: BackendConnection) -> None:
    """Reads one request and closes the connection instead of answering."""
    connection.receive_request()
    connection.close()


def never_answer(connection: BackendConnection) -> None:
    """Reads one request and stays silent until the balancer gives up."""
    connection.receive_request()
    connection.wait_for_end()


# Responders


def hello(request: Request) -> bytes:
    """200 with the target as its body."""
    return message.response(request.target.encode("latin-1"))


def echo(request: Request) -> bytes:
    """200 with the request's body."""
    return message.response(request.body)


def named(name: str) -> Responder:
    """200 with the backend's name as its body."""
    return lambda request: message.response(name.encode())
