"""Ends of TLS connections and new keys in the middle of them, with either side as the one that does it."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from harness import message
from harness.backends import BackendConnection
from harness.balancer import free_port
from harness.certificates import Authority, Certificate
from harness.stage import Stage
from harness.tls import Front, OpenSSLConsole
from harness.waiting import PATIENCE_S, wait_until
from harness.wire import accepts


class RecordClient:
    """A client whose records leave only when told so, and which can say close_notify and read on."""

    def __init__(self, front: Front) -> None:
        self.sock = socket.create_connection(("127.0.0.1", front.port), PATIENCE_S)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = front.context().wrap_bio(self._incoming, self._outgoing, server_hostname="a.test")
        self._until_done(self._session.do_handshake)
        self.flush()

    def write(self, data: bytes) -> None:
        self._session.write(data)

    def say_goodbye(self) -> None:
        """close_notify, without waiting for the other one."""
        try:
            self._session.unwrap()
        except ssl.SSLWantReadError:
            pass

    def flush(self) -> None:
        self.sock.sendall(self._outgoing.read())

    def read(self) -> bytes:
        """Some bytes; none when the peer has said that there are no more. A bare FIN raises SSLEOFError."""
        received: bytes = self._until_done(lambda: self._session.read(65536))  # type: ignore[assignment]
        return received

    def _until_done(self, step: object) -> object:
        while True:
            try:
                return step()  # type: ignore[operator]
            except ssl.SSLWantReadError:
                self.flush()
                data = self.sock.recv(65536)
                self._incoming.write(data) if data else self._incoming.write_eof()
            except ssl.SSLZeroReturnError:
                return b""


def test_answer_follows_a_half_close(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    """close_notify ends what the client says, and not what it hears (RFC 8446 §6.1)."""
    front = Front(stage, stage.backend(), authority, *certificate.server_flags)
    client = RecordClient(front)
    client.write(message.request("/half"))
    client.say_goodbye()
    client.flush()
    answer = b""
    while piece := client.read():
        answer += piece
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"/half")
    client.sock.close()


def test_request_whose_connection_is_cut_is_ended(
    stage: Stage, authority: Authority, certificate: Certificate
) -> None:
    """FIN without close_notify is no half-close: somebody may have cut the connection."""
    backend = stage.backend(lambda connection: (connection.receive_request(), connection.wait_for_end())[0])
    collector = stage.collector()
    flags = [*certificate.server_flags, "--half-close-timeout", "0.1"]
    front = Front(stage, backend, authority, *flags, collector=collector)
    client = RecordClient(front)
    client.write(message.request("/cut"))
    client.flush()
    backend.wait_for_requests(1)
    client.sock.shutdown(socket.SHUT_WR)
    assert backend.connections[0].ended.wait(PATIENCE_S)
    assert collector.wait_for_tree().span.error_type == "client_closed"
    client.sock.close()


def test_body_that_is_cut_is_not_passed_for_whole(
    stage: Stage, authority: Authority, certificate: Certificate
) -> None:
    """Half of a body and then FIN: the backend must not take it for a request."""
    ends: list[bytes] = []

    def reads(connection: BackendConnection) -> None:
        connection.receive_request_head()
        ends.append(connection.receive_to_end())
        connection.close()

    backend = stage.backend(reads)
    front = Front(stage, backend, authority, *certificate.server_flags)
    client = RecordClient(front)
    client.write(message.request("/", "Content-Length: 10", method="POST") + b"12345")
    client.flush()
    wait_until(lambda: backend.bytes_received > 0, "the request")
    client.sock.close()
    assert backend.connections[0].ended.wait(PATIENCE_S)
    assert ends in ([b"12345"], []), "the end, or a reset"


class Server(OpenSSLConsole):
    """openssl s_server. What was waited for, and what came before it, is forgotten."""

    def __init__(self, directory: Path, certificate: Certificate) -> None:
        self.port = free_port()
        command = ["s_server", "-accept", f"127.0.0.1:{self.port}", "-tls1_3", "-crlf", "-msg"]
        command += ["-cert", str(certificate.path), "-key", str(certificate.key), "-alpn", "http/1.1"]
        super().__init__(*command)
        wait_until(lambda: accepts(self.port), "s_server to accept")

    def wait_for(self, text: bytes) -> None:
        super().wait_for(text)
        self.output = self.output[self.output.index(text) + len(text) :]


def test_key_updates_of_a_backend(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    """New keys from the backend, asking for ours too, between requests and in the middle of an answer."""
    server = stage.keep(Server(stage.folder(), certificate))
    balancer = stage.balancer([f"https://127.0.0.1:{server.port}"], "--upstream-ca", str(authority.path))
    client = stage.client(balancer)
    for number, command in enumerate(["k", "K", "K"]):
        client.send(message.request(f"/{number}"))
        server.wait_for(f"GET /{number} HTTP/1.1".encode())
        server.type("HTTP/1.1 200 OK\nContent-Length: 8\n\none\n")
        assert client.receive_response_head().status == 200
        assert client.receive_exactly(5) == b"one\r\n"
        server.type(f"{command}\n")
        server.wait_for(b">>> TLS 1.3, Handshake [length 0005], KeyUpdate")
        server.type("x\n")
        assert client.receive_exactly(3) == b"x\r\n"
