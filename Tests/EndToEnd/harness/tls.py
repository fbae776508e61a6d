"""TLS around the harness's own peers: scripted backends, clients, and a balancer with an HTTPS port."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess

from harness.accepting import tls_context
from harness.backends import Script, ScriptedBackend
from harness.balancer import Balancer, free_port
from harness.certificates import Authority, Certificate
from harness.collector import Collector
from harness.stage import Addressed, Stage
from harness.waiting import PATIENCE_S
from harness.wire import Connection


class TLSBackend(ScriptedBackend):
    """A scripted backend behind TLS that agrees on HTTP/1.1."""

    context: ssl.SSLContext

    def __init__(self, certificate: Certificate, *scripts: Script, client_ca: Authority | None = None) -> None:
        super().__init__(*scripts, context=tls_context(certificate, "http/1.1", client_ca=client_ca))

    def named(self, name: str) -> str:
        """The address with a name in place of the number."""
        return f"https://{name}:{self.port}"


class Front:
    """A balancer with an HTTPS port beside its plain one, and clients that trust `authority`."""

    def __init__(
        self,
        stage: Stage,
        backends: Addressed | list[Addressed | str],
        authority: Authority,
        *flags: str,
        collector: Collector | None = None,
        workers: int = 1,
    ) -> None:
        self.authority = authority
        self.port = free_port()
        self.balancer: Balancer = stage.balancer(
            backends, "--tls-port", str(self.port), *flags, collector=collector, workers=workers
        )

    def context(self, certificate: Certificate | None = None) -> ssl.SSLContext:
        """What a client needs to trust the balancer, and to show `certificate`."""
        context = ssl.create_default_context(cafile=str(self.authority.path))
        if certificate:
            context.load_cert_chain(certificate.path, certificate.key)
        return context

    def connect(
        self,
        name: str = "a.test",
        context: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
    ) -> Connection:
        """A client's connection after its handshake."""
        plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
        wrapped = (context or self.context()).wrap_socket(plain, server_hostname=name, session=session)
        return Connection(wrapped)


def session_of(connection: Connection) -> ssl.SSLSocket:
    assert isinstance(connection.sock, ssl.SSLSocket)
    return connection.sock


class OpenSSLConsole:
    """An openssl program with somebody at its keyboard: a line with a letter alone is a command to it."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(
            ["openssl", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.output = b""

    def type(self, text: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def wait_for(self, text: bytes) -> None:
        assert self._process.stdout
        while text not in self.output:
            piece = os.read(self._process.stdout.fileno(), 65536)
            assert piece, f"no {text!r} in {self.output!r}"
            self.output += piece

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
