"""TLS around the harness's own peers: scripted backends, clients, and a balancer with an HTTPS port."""

from __future__ import annotations

import socket
import ssl

from harness.backends import BackendConnection, Script, ScriptedBackend, hello, serve
from harness.balancer import Balancer, free_port
from harness.certificates import Authority, Certificate
from harness.collector import Collector
from harness.stage import Addressed, Stage
from harness.waiting import PATIENCE_S
from harness.wire import Connection


class TLSBackend(ScriptedBackend):
    """A scripted backend behind TLS. A handshake that fails ends its connection quietly."""

    def __init__(self, certificate: Certificate, *scripts: Script, client_ca: Authority | None = None) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate.path, certificate.key)
        self.context.set_alpn_protocols(["http/1.1"])
        if client_ca:
            self.context.load_verify_locations(client_ca.path)
            self.context.verify_mode = ssl.CERT_REQUIRED
        super().__init__(*(scripts or (serve(hello),)))

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def named(self, name: str) -> str:
        """The address with a name in place of the number."""
        return f"https://{name}:{self.port}"

    def _adopt(self, sock: socket.socket) -> None:
        super()._adopt(self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False))

    def _run(self, script: Script, connection: BackendConnection) -> None:
        try:
            assert isinstance(connection.sock, ssl.SSLSocket)
            connection.sock.do_handshake()
        except OSError:
            connection.close()
            connection.ended.set()
            return
        super()._run(script, connection)


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
