"""The tree of a request over TLS on both sides, whole and exact, to backends of either version (SPANS.md)."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest

from harness import message
from harness.accepting import tls_context
from harness.backends import BackendConnection, ScriptedBackend
from harness.certificates import Authority, Certificate
from harness.collector import Collector, for_target
from harness.either import connect
from harness.http2 import Http2Backend, Http2BackendConnection
from harness.spans import Tree
from harness.stage import Stage
from harness.tls import Front

FRESH_1 = [
    "proxy_request SERVER",
    "  backend_selection INTERNAL",
    "  backend_connection INTERNAL",
    "    pool_acquire INTERNAL",
    "    dns_resolution INTERNAL",
    "    tcp_connect INTERNAL",
    "    tls_handshake INTERNAL",
    "  backend_request CLIENT",
    "  response_streaming INTERNAL",
]
FRESH_2 = [
    "proxy_request SERVER",
    "  backend_selection INTERNAL",
    "  backend_request_h2 CLIENT",
    "    pool_acquire INTERNAL",
    "    dns_resolution INTERNAL",
    "    tcp_connect INTERNAL",
    "    tls_handshake INTERNAL",
    "    h2_handshake INTERNAL",
    "    response_streaming INTERNAL",
]
STEPS = ["dns_resolution", "tcp_connect", "tls_handshake", "h2_handshake"]
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
CIPHERS = {"1.2": "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "1.3": "TLS_AES_256_GCM_SHA384"}


def reused(outline: list[str]) -> list[str]:
    return [line for line in outline if line.split()[0] not in STEPS]


def two_answers_1(connection: BackendConnection) -> None:
    connection.receive_request()
    connection.send(message.response(b"1"))
    connection.receive_request()
    connection.send(message.response(b"2", "Connection: close"))
    connection.close()


def two_answers_2(connection: Http2BackendConnection) -> None:
    """The second comes behind a GOAWAY, so that the next request needs another connection."""
    connection.start()
    connection.answer(connection.next_request(1).stream_id, b"1")
    last = connection.next_request(2).stream_id
    connection.goaway(last)
    connection.answer(last, b"2")
    connection.wait_for_end()


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.issue("DNS:localhost", "DNS:a.test")


class Traced:
    """A backend that answers twice on each connection, and the trees of four requests to it."""

    def __init__(self, stage: Stage, authority: Authority, certificate: Certificate, speaks: str, version: str) -> None:
        context = tls_context(certificate, "h2" if speaks == "h2" else "http/1.1")
        context.maximum_version = VERSIONS[version]
        self.backend: ScriptedBackend | Http2Backend
        if speaks == "h2":
            self.backend = stage.keep(Http2Backend(two_answers_2, context=context))
        else:
            self.backend = stage.keep(ScriptedBackend(two_answers_1, context=context))
        self.collector: Collector = stage.collector()
        name = f"https://localhost:{self.backend.port}"
        flags = [*certificate.server_flags, "--upstream-ca", str(authority.path)]
        self.front = Front(stage, [name], authority, *flags, collector=self.collector)

    def trees(self) -> list[Tree]:
        """Of two requests over each version, the next always after the one before."""
        for kind in ("h1-tls", "h2-tls"):
            client = connect(kind, self.front)
            for _ in range(2):
                client.send("GET", ("user-agent", "probe"))
                assert client.answer().status == 200
            client.close()
        return self.collector.wait_for_trees(4)


@pytest.fixture(params=[("h1", "1.2"), ("h1", "1.3"), ("h2", "1.2"), ("h2", "1.3")], ids="-".join)
def told(
    request: pytest.FixtureRequest, shared_stage: Stage, authority: Authority, certificate: Certificate
) -> Iterator[tuple[Traced, str, str]]:
    speaks, version = request.param
    traced = Traced(shared_stage, authority, certificate, speaks, version)
    yield traced, speaks, version
    traced.front.balancer.begin_close()


def test_handshakes_are_told_once_and_as_they_were(told: tuple[Traced, str, str]) -> None:
    traced, speaks, version = told
    trees = traced.trees()
    fresh = FRESH_2 if speaks == "h2" else FRESH_1
    assert [tree.outline() for tree in trees] == [fresh, reused(fresh)] * 2
    for tree, was_resumed in [(trees[0], False), (trees[2], True)]:
        handshake = tree.one("tls_handshake")
        assert handshake.attributes == {
            "tls.server_name": "localhost",
            "tls.cipher": CIPHERS[version],
            "tls.alpn": "h2" if speaks == "h2" else "http/1.1",
            "tls.protocol.version": version,
            "tls.resumed": was_resumed,
        }
        assert handshake.status == "UNSET"
        steps = [tree.one(name) for name in STEPS if tree.all(name)]
        assert all(step.end_ns <= after.start_ns for step, after in zip(steps, steps[1:], strict=False))
        assert handshake.end_ns > handshake.start_ns
    _assert_attributes(traced, speaks, trees)


def _assert_attributes(traced: Traced, speaks: str, trees: list[Tree]) -> None:
    host = f"localhost:{traced.backend.port}"
    for index, tree in enumerate(trees):
        root = dict(tree.span.attributes)
        assert root.pop("net.peer.port") and root.pop("lb.generation")
        assert root == {
            "http.method": "GET",
            "http.url": "https://example.test/path?query",
            "http.status_code": 200,
            "http.flavor": "1.1" if index < 2 else "2",
            "http.host": "example.test",
            "http.user_agent": "probe",
            "http.response_content_length": 1,
            "net.peer.ip": "127.0.0.1",
            "backend.id": 0,
            "backend.host": host,
            "lb.worker": 0,
        }
        connection = f"w0-{1 + index // 2}"
        facts = {"connection.id": connection, "connection.from_pool": index % 2 == 1}
        message_facts = {
            "http.method": "GET",
            "http.url": "https://example.test/path?query",
            "http.status_code": 200,
        }
        if speaks == "h2":
            assert tree.one("backend_request_h2").attributes == facts | message_facts | {
                "http.response_content_length": 1,
                "h2.retry_count": 0,
                "h2.stream_id": 1 + 2 * (index % 2),
                "h2.streams_active": 1,
            }
        else:
            assert tree.one("backend_connection").attributes == facts | {"backend.host": host}
            assert tree.one("backend_request").attributes == message_facts | {"http.flavor": "1.1"}
        assert tree.one("pool_acquire").attributes["pool.outcome"] == ("reused" if index % 2 else "created")
        if index % 2 == 0:
            assert tree.one("tcp_connect").attributes == {
                "net.peer.name": "localhost",
                "net.peer.port": traced.backend.port,
                "net.peer.ip": "127.0.0.1",
            }
            assert tree.one("dns_resolution").attributes["dns.hostname"] == "localhost"


def test_each_backend_has_its_own_sessions(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    """Two backends of one name: a session with one is not offered to the other."""

    def once(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(message.response(b"", "Connection: close"))
        connection.close()

    backends = [stage.keep(ScriptedBackend(once, context=tls_context(certificate, "http/1.1"))) for _ in range(2)]
    collector = stage.collector()
    names = [f"https://localhost:{backend.port}" for backend in backends]
    balancer = stage.balancer(names, "--upstream-ca", str(authority.path), collector=collector)
    for number in range(4):
        assert balancer.get(f"/{number}").status == 200
    handshakes = [collector.wait_for_tree(for_target(f"/{n}")).one("tls_handshake") for n in range(4)]
    assert [handshake.attributes["tls.resumed"] for handshake in handshakes] == [False, False, True, True]
