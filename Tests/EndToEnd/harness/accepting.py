"""What all backends of the harness have in common: a listener, and a thread for each connection it accepts."""

from __future__ import annotations

import socket
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from harness.certificates import Authority, Certificate
from harness.waiting import PATIENCE_S


class Accepted(Protocol):
    """A connection as the backend sees it; `ended` is set when its script has returned."""

    sock: socket.socket
    index: int
    ended: threading.Event

    def close(self) -> None: ...

    def abort(self) -> None: ...


Played = TypeVar("Played", bound=Accepted)


class AcceptingBackend(ABC, Generic[Played]):
    """Connection n runs script n, and the last one from then on; behind TLS where there is a context.

    A handshake that fails ends its connection quietly, and so does what `quiet` lists. Any other exception of a
    script fails the test when the backend is closed.
    """

    quiet: tuple[type[BaseException], ...] = (ConnectionError,)

    def __init__(
        self,
        listener: socket.socket,
        scripts: Sequence[Callable[[Played], None]],
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.connections: list[Played] = []
        self.context = context
        self._scripts = scripts
        self._listener = listener
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._changed = threading.Condition()
        self._start(self._accept_loop)

    @abstractmethod
    def _connection(self, sock: socket.socket, index: int) -> Played: ...

    # What tests look at

    def wait_for_connections(self, count: int) -> list[Played]:
        """Waits until at least `count` connections were accepted."""
        self._wait(lambda: len(self.connections) >= count, f"{count} connections")
        return self.connections

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        with self._changed:
            met = self._changed.wait_for(condition, PATIENCE_S)
        assert met, f"the backend waited for {what}; it has {self.connections}"

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
            if self.context:
                sock = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            self._adopt(sock)

    def _adopt(self, sock: socket.socket) -> None:
        with self._changed:
            connection = self._connection(sock, len(self.connections))
            self.connections.append(connection)
            self._changed.notify_all()
        script = self._scripts[min(connection.index, len(self._scripts) - 1)]
        self._start(lambda: self._run(script, connection))

    def _run(self, script: Callable[[Played], None], connection: Played) -> None:
        try:
            if self._shake_hands(connection):
                script(connection)
        except self.quiet:
            connection.close()
        except OSError as error:
            if connection.sock.fileno() >= 0:
                self._errors.append(error)
        except Exception as error:
            self._errors.append(error)
        finally:
            connection.ended.set()

    @staticmethod
    def _shake_hands(connection: Played) -> bool:
        """Whether TLS, where it is wanted, has come about."""
        if not isinstance(connection.sock, ssl.SSLSocket):
            return True
        try:
            connection.sock.do_handshake()
        except OSError:
            connection.close()
            return False
        return True


def tls_context(certificate: Certificate, *protocols: str, client_ca: Authority | None = None) -> ssl.SSLContext:
    """A server's, that agrees on one of `protocols`, and wants to see a certificate of `client_ca` where there is one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.path, certificate.key)
    context.set_alpn_protocols(list(protocols))
    if client_ca:
        context.load_verify_locations(client_ca.path)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
