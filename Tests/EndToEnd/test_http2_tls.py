"""HTTP/2 over TLS towards backends, agreed on by ALPN, and what happens when there is no agreement."""

from __future__ import annotations

import subprocess
import threading

import pytest

from harness import message
from harness.backends import hello, serve
from harness.certificates import Authority, Certificate
from harness.http2 import Http2Backend, Http2Client
from harness.stage import Stage
from harness.tls import Front, TLSBackend

FRESH = [
    "proxy_request SERVER",
    "  backend_selection INTERNAL",
    "  backend_request_h2 CLIENT",
    "    pool_acquire INTERNAL",
    "    tcp_connect INTERNAL",
    "    tls_handshake INTERNAL",
    "    h2_handshake INTERNAL",
    "    response_streaming INTERNAL",
]
REUSED = [line for line in FRESH if "connect" not in line and "handshake" not in line]


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.issue("DNS:localhost", "DNS:a.test", "IP:127.0.0.1")


def trusting(authority: Authority) -> list[str]:
    return ["--upstream-ca", str(authority.path)]


def test_tree_of_the_request_that_made_the_connection(
    stage: Stage, authority: Authority, certificate: Certificate
) -> None:
    backend = stage.keep(Http2Backend(certificate=certificate))
    collector = stage.collector()
    balancer = stage.balancer(backend, *trusting(authority), collector=collector)
    assert [balancer.get(path).body for path in ("/a", "/b")] == [b"/a", b"/b"]
    first, second = collector.wait_for_trees(2)
    for tree in (first, second):
        tree.assert_sound()
    assert first.outline() == FRESH
    assert second.outline() == REUSED
    handshake = first.one("tls_handshake")
    assert handshake.attributes["tls.alpn"] == "h2"
    assert first.one("tcp_connect").end_ns <= handshake.start_ns
    assert handshake.end_ns <= first.one("h2_handshake").start_ns
    assert backend.requests[0][":scheme"] == "https"
    assert len(backend.connections) == 1


def test_backend_without_http2_is_spoken_to_in_http1(
    stage: Stage, authority: Authority, certificate: Certificate
) -> None:
    everybody = threading.Barrier(5)

    def together(connection: object) -> None:
        request = connection.receive_request()  # type: ignore[attr-defined]
        everybody.wait(10)
        connection.send(message.response(request.target.encode()))  # type: ignore[attr-defined]

    backend = stage.keep(TLSBackend(certificate, together))
    balancer = stage.balancer(backend, *trusting(authority))
    client = stage.keep(Http2Client(balancer.port))
    streams = [1, 3, 5, 7, 9]
    for stream in streams:
        client.h2.send_headers(stream, client.request_fields(f"/{stream}"), end_stream=True)
    client.flush()
    assert [client.answer(stream).body for stream in streams] == [f"/{stream}".encode() for stream in streams]
    assert len(backend.connections) == 5


def test_nothing_but_http1_is_offered_when_told_so(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    backend = stage.keep(TLSBackend(certificate, serve(hello)))
    backend.context.set_alpn_protocols(["h2", "http/1.1"])
    balancer = stage.balancer(backend, *trusting(authority), "--upstream-alpn", "http/1.1")
    assert balancer.get("/x").body == b"/x"


def test_handshake_that_fails_is_502(stage: Stage, certificate: Certificate) -> None:
    backend = stage.keep(Http2Backend(certificate=certificate))
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector)
    assert balancer.get().status == 502
    tree = collector.wait_for_tree()
    assert tree.all("tls_handshake")[0].status == "ERROR"


def test_curl_through_tls_on_both_sides(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    backend = stage.keep(Http2Backend(certificate=certificate))
    front = Front(stage, backend, authority, *certificate.server_flags, *trusting(authority))
    resolve = f"a.test:{front.port}:127.0.0.1"
    command = ["curl", "--http2", "--silent", "--show-error", "--fail", "--max-time", "20", "--cacert", authority.path]
    output = subprocess.run(
        [*command, "--resolve", resolve, "--write-out", " %{http_version}", f"https://a.test:{front.port}/path"],
        check=True,
        capture_output=True,
    ).stdout
    assert output == b"/path 2"
