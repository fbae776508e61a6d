"""HTTPS towards backends: who is trusted, what is resumed, what a failed handshake leaves behind."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading

import pytest

from harness import message
from harness.backends import BackendConnection, hello, serve
from harness.certificates import Authority, Certificate
from harness.collector import for_target
from harness.nginx import Nginx
from harness.spans import Tree
from harness.stage import Stage
from harness.tls import Front, TLSBackend

FRESH = [
    "proxy_request SERVER",
    "  backend_selection INTERNAL",
    "  backend_connection INTERNAL",
    "    pool_acquire INTERNAL",
    "    tcp_connect INTERNAL",
    "    tls_handshake INTERNAL",
    "  backend_request CLIENT",
    "  response_streaming INTERNAL",
]
REUSED = [line for line in FRESH if "tcp_connect" not in line and "tls_handshake" not in line]


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.issue("DNS:localhost", "IP:127.0.0.1")


def trusting(authority: Authority) -> list[str]:
    return ["--upstream-ca", str(authority.path)]


# What works


def test_request_and_its_tree(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    backend = stage.keep(TLSBackend(certificate))
    collector = stage.collector()
    balancer = stage.balancer(backend, *trusting(authority), collector=collector)
    client = stage.client(balancer)
    for target in ("/first", "/second"):
        client.send(message.request(target))
        assert client.receive_response().text == target
    first = collector.wait_for_tree(for_target("/first"))
    first.assert_sound()
    assert first.outline() == FRESH
    handshake = first.one("tls_handshake")
    assert handshake.attributes == {
        "tls.cipher": "TLS_AES_256_GCM_SHA384",
        "tls.alpn": "http/1.1",
        "tls.protocol.version": "1.3",
        "tls.resumed": False,
    }
    assert handshake.status == "UNSET"
    assert first.one("tcp_connect").end_ns <= handshake.start_ns
    assert collector.wait_for_tree(for_target("/second")).outline() == REUSED
    assert backend.requests[0].get("X-Forwarded-Proto") == "http"


def test_name_is_asked_for_and_checked(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    names: list[str | None] = []
    backend = stage.keep(TLSBackend(certificate))
    backend.context.sni_callback = lambda sock, name, context: names.append(name)
    collector = stage.collector()
    balancer = stage.balancer([backend.named("localhost")], *trusting(authority), collector=collector)
    assert balancer.get("/").status == 200
    assert names == ["localhost"]
    handshake = collector.wait_for_tree().one("tls_handshake")
    assert handshake.attributes["tls.server_name"] == "localhost"


def test_sessions_are_resumed(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    def one_request(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(message.response(b"", "Connection: close"))

    collector = stage.collector()
    backend = stage.keep(TLSBackend(certificate, one_request))
    balancer = stage.balancer(backend, *trusting(authority), collector=collector)
    for target in ("/0", "/1", "/2"):
        assert balancer.get(target).status == 200
    resumed = [
        collector.wait_for_tree(for_target(target)).one("tls_handshake").attributes["tls.resumed"]
        for target in ("/0", "/1", "/2")
    ]
    assert resumed == [False, True, True]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(
    stage: Stage, authority: Authority, certificate: Certificate, version: ssl.TLSVersion
) -> None:
    backend = stage.keep(TLSBackend(certificate))
    backend.context.maximum_version = version
    collector = stage.collector()
    balancer = stage.balancer(backend, *trusting(authority), collector=collector)
    assert balancer.get("/").status == 200
    told = collector.wait_for_tree().one("tls_handshake").attributes["tls.protocol.version"]
    assert told == version.name.removeprefix("TLSv").replace("_", ".")


def test_own_certificate_is_shown(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    backend = stage.keep(TLSBackend(certificate, client_ca=authority))
    own = authority.issue("DNS:balancer.test")
    assert stage.balancer(backend, *trusting(authority), *own.upstream_flags).get("/").status == 200
    assert stage.balancer(backend, *trusting(authority)).get("/").status == 502


def test_tls_on_both_sides(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    front_certificate = authority.issue("DNS:a.test")
    backend = stage.keep(TLSBackend(certificate, serve(lambda request: message.response(request.body))))
    front = Front(stage, backend, authority, *front_certificate.server_flags, *trusting(authority))
    client = stage.keep(front.connect())
    body = bytes(range(256)) * 4000
    client.send(message.request("/", method="POST", body=body))
    assert client.receive_response().body == body
    assert backend.requests[0].get("X-Forwarded-Proto") == "https"


def test_nginx_as_a_backend(
    stage: Stage, authority: Authority, certificate: Certificate
) -> None:
    body = bytes(range(256)) * 16_000
    nginx = stage.keep(Nginx(stage.folder(), {"large": body}, certificate=certificate))
    balancer = stage.balancer(nginx, *trusting(authority))
    assert balancer.get("/large").body == body
    assert balancer.get("/small").text == "small\n"
    done = subprocess.run(
        ["h2load", "--h1", "-n", "1000", "-c", "10", f"http://127.0.0.1:{balancer.port}/small"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "1000 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout


# What does not


def refused_tree(stage: Stage, address: str, *flags: str) -> Tree:
    collector = stage.collector()
    balancer = stage.balancer([address], *flags, collector=collector)
    assert balancer.get("/").status == 502
    tree = collector.wait_for_tree()
    tree.assert_sound()
    assert tree.span.error_type == "tls_failure"
    handshake = tree.all("tls_handshake")[-1]
    assert handshake.status == "ERROR"
    assert handshake.error_type == "tls_failure"
    assert tree.all("tcp_connect")[-1].status == "UNSET"
    assert "a backend's handshake failed" in balancer.log()
    return tree


def reason_of(tree: Tree) -> str:
    return tree.all("tls_handshake")[-1].status_message


def test_unknown_authority(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    tree = refused_tree(stage, stage.keep(TLSBackend(certificate)).address)
    assert reason_of(tree) == "certificate verify failed: unable to get local issuer certificate"
    assert not tree.all("backend_request"), "nothing was sent"


def test_self_signed(stage: Stage, authority: Authority) -> None:
    own = authority.self_signed("IP:127.0.0.1")
    tree = refused_tree(stage, stage.keep(TLSBackend(own)).address, *trusting(authority))
    assert reason_of(tree) == "certificate verify failed: self-signed certificate"


def test_wrong_name(stage: Stage, authority: Authority) -> None:
    backend = stage.keep(TLSBackend(authority.issue("DNS:other.test")))
    tree = refused_tree(stage, backend.named("localhost"), *trusting(authority))
    assert reason_of(tree) == "certificate verify failed: hostname mismatch"


def test_expired(stage: Stage, authority: Authority) -> None:
    backend = stage.keep(TLSBackend(authority.issue("IP:127.0.0.1", days=-1)))
    tree = refused_tree(stage, backend.address, *trusting(authority))
    assert reason_of(tree) == "certificate verify failed: certificate has expired"


def test_plain_backend(stage: Stage) -> None:
    backend = stage.backend(lambda connection: connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    tree = refused_tree(stage, f"https://{backend.address}")
    assert "wrong version number" in reason_of(tree) or "packet length" in reason_of(tree)


def test_insecure_takes_everybody(stage: Stage, authority: Authority) -> None:
    backend = stage.keep(TLSBackend(authority.self_signed("DNS:other.test")))
    balancer = stage.balancer(backend, "-k")
    assert balancer.get("/").status == 200
    assert "certificates of backends are not checked" in balancer.log()


def test_next_backend_is_tried(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    bad = stage.keep(TLSBackend(authority.self_signed("IP:127.0.0.1")))
    good = stage.keep(TLSBackend(certificate, serve(hello)))
    collector = stage.collector()
    balancer = stage.balancer([bad, good], *trusting(authority), collector=collector)
    assert balancer.get("/0").status == 200
    tree = collector.wait_for_tree(for_target("/0"))
    assert tree.span.event("retry_triggered").attributes["retry.reason"] == "connect_failed"
    assert [span.status for span in tree.all("tls_handshake")] == ["ERROR", "UNSET"]
    assert [span.status for span in tree.all("tcp_connect")] == ["UNSET", "UNSET"]


def test_silent_backend_runs_into_the_connect_timeout(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        collector = stage.collector()
        address = f"https://127.0.0.1:{silent.getsockname()[1]}"
        balancer = stage.balancer([address], "--connect-timeout", "0.2", "-k", collector=collector)
        assert balancer.get("/").status == 504
        tree = collector.wait_for_tree()
        assert tree.one("tls_handshake").error_type == "connect_timeout"
        assert tree.one("tcp_connect").status == "UNSET"


def test_body_that_is_cut_is_not_taken_for_whole(
    stage: Stage, authority: Authority, certificate: Certificate
) -> None:
    """A body until the connection's end, whose connection ends without close_notify."""

    def cut(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(b"HTTP/1.1 200 OK\r\n\r\npart")
        connection.abort()

    collector = stage.collector()
    balancer = stage.balancer(
        stage.keep(TLSBackend(certificate, cut)), *trusting(authority), collector=collector
    )
    client = stage.client(balancer)
    client.send(message.request("/"))
    client.receive_response_head()
    with pytest.raises(Exception):
        client.receive_chunk()
        client.receive_chunk()
    tree = collector.wait_for_tree()
    assert tree.one("response_streaming").attributes["http.body.had_error"] is True


def test_handshake_in_pieces(
    stage: Stage, authority: Authority, certificate: Certificate
) -> None:
    """A slow network: the backend's flight arrives in pieces."""
    backend = stage.keep(TLSBackend(certificate))
    relay = stage.keep(SlowRelay(backend.port))
    balancer = stage.balancer([f"https://127.0.0.1:{relay.port}"], *trusting(authority))
    assert balancer.get("/slow").text == "/slow"


class SlowRelay:
    """Passes bytes on in small pieces, in both directions."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            near, _ = self._listener.accept()
        except OSError:
            return
        far = socket.create_connection(("127.0.0.1", self._target))
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self._pass, args=(near, far), daemon=True).start()
        self._pass(far, near)

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(7):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self._listener.close()
