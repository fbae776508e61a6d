"""Traces of connections to backends, and the links of the attempts that used them."""

from __future__ import annotations

import signal
import h2.events
import h2.settings
import pytest

from harness import message
from harness.backends import refused_port, serve_once
from harness.certificates import Authority, Certificate
from harness.collector import Collector, for_target
from harness.http2 import Http2Backend, Http2BackendConnection, Http2Client, echo_http2, serve_http2
from harness.nginx import Nginx
from harness.spans import FLAG_HAS_IS_REMOTE, Span, Tree
from harness.stage import Stage
from harness.tls import TLSBackend
from harness.waiting import wait_until

MAX_CONCURRENT = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
ATTEMPTS = ("backend_request", "backend_request_h2")


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.issue("DNS:localhost", "IP:127.0.0.1")


def attempts(trees: list[Tree]) -> list[Span]:
    return [span for tree in trees for span in tree if span.name in ATTEMPTS]


def assert_links(spans: list[Span], connection: Tree) -> None:
    """Every span has one link, to that connection."""
    for span in spans:
        assert (span.link.trace_id, span.link.span_id) == (connection.span.trace_id, connection.span.span_id)
        assert span.link.attributes == {"connection.id": connection.span.attributes["connection.id"]}
        assert span.link.flags == FLAG_HAS_IS_REMOTE | 3


def only_connection(collector: Collector) -> Tree:
    (connection,) = collector.wait_for_connections(1)
    return connection


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
def test_connection_of_http1_is_one_trace_that_its_requests_link_to(stage: Stage, protocol: str) -> None:
    backend, collector = stage.backend(), stage.collector()
    balancer = stage.balancer(backend, "--otel-protocol", protocol, collector=collector)
    client = stage.client(balancer)
    for target in ("/a", "/b", "/c"):
        client.send(message.request(target))
        client.receive_response()
    requests = collector.wait_for_trees(3)
    assert collector.connections == []
    client.close()
    balancer.close()
    connection = only_connection(collector)
    assert connection.outline() == ["upstream_connection INTERNAL", "  tcp_connect INTERNAL"]
    span = connection.span
    sizes = [int(str(span.attributes.pop(f"connection.bytes_{way}"))) for way in ("sent", "received")]
    assert all(size > 100 for size in sizes)
    assert span.attributes == {
        "connection.id": "w0-1",
        "backend.host": backend.address,
        "backend.id": 0,
        "lb.worker": 0,
        "lb.generation": 1,
        "connection.tls": False,
        "http.flavor": "1.1",
        "connection.requests_started": 3,
        "connection.requests_answered": 3,
        "connection.close_reason": "shutdown",
    }
    assert (span.status, span.parent_span_id, span.flags) == ("UNSET", "", FLAG_HAS_IS_REMOTE | 3)
    assert len(attempts(requests)) == 3
    assert_links(attempts(requests), connection)
    assert all(len(other.links) == 0 for tree in requests for other in tree if other.name not in ATTEMPTS)
    assert {tree.span.trace_id for tree in requests}.isdisjoint({span.trace_id})
    made, first = connection.one("tcp_connect"), requests[0].one("tcp_connect")
    assert (made.start_ns, made.end_ns, made.attributes) == (first.start_ns, first.end_ns, first.attributes)


def test_connection_of_http2_has_its_settings_and_streams(stage: Stage) -> None:
    backend = stage.keep(Http2Backend(serve_http2(settings={MAX_CONCURRENT: 42})))
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector)
    client = stage.keep(Http2Client(balancer.port))
    streams = [client.request(f"/{number}") for number in range(20)]
    assert [client.answer(stream).status for stream in streams] == [200] * 20
    client.close()
    balancer.close()
    connection = only_connection(collector)
    assert connection.outline() == [
        "upstream_connection INTERNAL",
        "  tcp_connect INTERNAL",
        "  h2_handshake INTERNAL",
    ]
    facts = connection.span.attributes
    assert (facts["http.flavor"], facts["connection.requests_started"], facts["connection.requests_answered"]) == (
        "2", 20, 20)
    assert facts["connection.close_reason"] == "shutdown"
    assert facts["h2.settings_count"] == 1
    settings = {"h2.max_concurrent_streams": 42, "h2.initial_window_size": 65535}
    assert connection.span.event("settings_received").attributes == settings
    assert connection.one("h2_handshake").attributes == settings
    assert_links(attempts(collector.wait_for_trees(20)), connection)


def test_later_settings_are_events_too(stage: Stage) -> None:
    def script(connection: Http2BackendConnection) -> None:
        connection.start()
        stream = connection.next_request().stream_id
        connection.h2.update_settings({MAX_CONCURRENT: 5})
        connection.flush()
        connection.answer(stream, b"done")
        connection.wait_for_end()

    collector = stage.collector()
    balancer = stage.balancer(stage.keep(Http2Backend(script)), collector=collector)
    assert balancer.get().body == b"done"
    balancer.close()
    events = [e for e in only_connection(collector).span.events if e.name == "settings_received"]
    assert len(events) == 2
    assert events[1].attributes["h2.max_concurrent_streams"] == 5


@pytest.mark.parametrize("code", [0, 11])
def test_goaway_is_the_reason_and_those_who_died_of_it_link_there(stage: Stage, code: int) -> None:
    def script(connection: Http2BackendConnection) -> None:
        connection.start()
        connection.next_request(3)
        connection.goaway(0, code, b"bye")
        connection.wait_for_end()

    collector = stage.collector()
    backend = stage.keep(Http2Backend(script, serve_http2(echo_http2)))
    balancer = stage.balancer(backend, collector=collector)
    client = stage.keep(Http2Client(balancer.port))
    streams = [client.request(f"/{number}") for number in range(3)]
    assert [client.answer(stream).status for stream in streams] == [200] * 3
    connection = only_connection(collector)
    facts = connection.span.attributes
    assert facts["connection.close_reason"] == "goaway"
    assert facts["h2.goaway_count"] == 1
    name = {0: "NO_ERROR", 11: "ENHANCE_YOUR_CALM"}[code]
    assert connection.span.event("goaway_received").attributes == {
        "h2.error_code": name, "h2.last_stream_id": 0, "h2.debug_data": "bye"}
    assert (connection.span.status, connection.span.error_type) == (
        ("UNSET", None) if code == 0 else ("ERROR", "goaway"))
    assert (facts["connection.requests_started"], facts["connection.requests_answered"]) == (3, 0)
    trees = collector.wait_for_trees(3)
    died = [span for span in attempts(trees) if span.has_event("goaway_received")]
    assert len(died) == 3
    assert_links(died, connection)
    client.close()
    balancer.close()
    second = collector.wait_for_connections(2)[1]
    assert second.span.attributes["connection.close_reason"] == "shutdown"
    assert_links([span for span in attempts(trees) if span not in died], second)


def test_connection_that_breaks_leads_to_all_who_died_with_it(stage: Stage) -> None:
    def script(connection: Http2BackendConnection) -> None:
        connection.start()
        connection.next_request(3)
        connection.close()

    collector = stage.collector()
    balancer = stage.balancer(stage.keep(Http2Backend(script)), collector=collector)
    client = stage.keep(Http2Client(balancer.port))
    streams = [client.request(f"/{number}") for number in range(3)]
    assert [client.answer(stream).status for stream in streams] == [502] * 3
    connection = only_connection(collector)
    assert connection.span.attributes["connection.close_reason"] in ("peer_closed", "reset")
    assert connection.span.error_type in ("upstream_closed", "upstream_reset")
    assert connection.span.attributes["connection.requests_answered"] == 0
    died = attempts(collector.wait_for_trees(3))
    assert [span.status for span in died] == ["ERROR"] * 3
    assert_links(died, connection)


def test_old_connection_says_that_it_was_old(stage: Stage) -> None:
    collector = stage.collector()
    balancer = stage.balancer(
        stage.keep(Http2Backend()), "--upstream-max-connection-age", "0.001", collector=collector)
    assert balancer.get("/a").status == 200
    wait_until(lambda: balancer.get("/b").status == 200 and bool(collector.connections), "an old connection's end")
    first = collector.connections[0].span
    assert (first.attributes["connection.close_reason"], first.status) == ("max_age", "UNSET")


def test_ping_round_trips_are_timed(stage: Stage) -> None:
    def script(connection: Http2BackendConnection) -> None:
        connection.start()
        stream = connection.next_request().stream_id
        connection.wait_until(lambda: len(connection.all(h2.events.PingReceived)) >= 2)
        connection.answer(stream, b"alive")
        connection.wait_for_end()

    collector = stage.collector()
    backend = stage.keep(Http2Backend(script))
    balancer = stage.balancer(backend, "--upstream-ping-interval", "0.1", collector=collector)
    assert balancer.get().body == b"alive"
    balancer.close()
    span = only_connection(collector).span
    times = [e.attributes["h2.ping_rtt_us"] for e in span.events if e.name == "ping_acknowledged"]
    count = int(str(span.attributes["h2.ping_count"]))
    assert count >= 2
    assert len(times) == min(count, 8), "the first and the last seven are kept"
    assert 0 < int(str(span.attributes["h2.ping_rtt_min_us"])) <= min(times)  # type: ignore[type-var]
    assert int(str(span.attributes["h2.ping_rtt_max_us"])) >= max(times)  # type: ignore[type-var]


def test_connection_over_tls_has_its_handshake(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    trusting = ("--upstream-ca", str(authority.path))
    for backend, alpn, flavor in (
        (stage.keep(TLSBackend(certificate)), "http/1.1", "1.1"),
        (stage.keep(Http2Backend(certificate=certificate)), "h2", "2"),
    ):
        collector = stage.collector()
        balancer = stage.balancer(backend, *trusting, collector=collector)
        assert balancer.get("/x").body == b"/x"
        balancer.close()
        connection = only_connection(collector)
        handshake = connection.one("tls_handshake")
        assert handshake.attributes["tls.alpn"] == alpn
        assert connection.one("tcp_connect").end_ns <= handshake.start_ns
        assert connection.span.attributes["connection.tls"] is True
        assert connection.span.attributes["http.flavor"] == flavor
        assert_links(attempts(collector.wait_for_trees(1)), connection)


def test_handshake_that_fails_is_told(stage: Stage, certificate: Certificate) -> None:
    collector = stage.collector()
    balancer = stage.balancer(stage.keep(TLSBackend(certificate)), "--max-attempts", "1", collector=collector)
    assert balancer.get().status == 502
    connection = only_connection(collector)
    assert connection.span.attributes["connection.close_reason"] == "tls_failure"
    assert (connection.span.status, connection.span.error_type) == ("ERROR", "tls_failure")
    assert "certificate" in connection.span.status_message
    assert connection.one("tls_handshake").status == "ERROR"
    assert "http.flavor" not in connection.span.attributes
    assert_links([collector.wait_for_tree().one("backend_connection")], connection)


def test_refused_connections_are_told(stage: Stage) -> None:
    collector = stage.collector()
    backends = [f"127.0.0.1:{refused_port()}", stage.backend()]
    balancer = stage.balancer(backends, collector=collector)
    assert balancer.get("/x").status == 200
    connection = only_connection(collector)
    assert connection.outline() == ["upstream_connection INTERNAL", "  tcp_connect INTERNAL"]
    assert connection.span.attributes["connection.close_reason"] == "connect_failed"
    assert (connection.span.status, connection.span.error_type) == ("ERROR", "connect_refused")
    first, second = collector.wait_for_tree(for_target("/x")).all("backend_connection")
    assert_links([first], connection)
    assert second.links == []


@pytest.mark.parametrize(
    ("answer", "reason", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", "connection_close", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "peer_closed", None),
        (b"nonsense\r\n\r\n", "protocol_error", "upstream_protocol_error"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "peer_closed", "upstream_closed"),
    ],
    ids=["close", "idle", "nonsense", "cut"],
)
def test_end_of_a_connection_has_its_reason(stage: Stage, answer: bytes, reason: str, error: str | None) -> None:
    collector = stage.collector()
    balancer = stage.balancer(stage.backend(serve_once(answer)), collector=collector)
    client = stage.client(balancer)
    client.send(message.request("/"))
    connection = only_connection(collector)
    assert (connection.span.attributes["connection.close_reason"], connection.span.error_type) == (reason, error)
    assert connection.span.status == ("ERROR" if error else "UNSET")


def test_idle_connection_ends_by_its_timeout(stage: Stage) -> None:
    collector = stage.collector()
    backends = (stage.backend(), stage.keep(Http2Backend()))
    balancer = stage.balancer(backends, "--upstream-idle-timeout", "0.2", collector=collector)
    assert [balancer.get().status for _ in backends] == [200, 200]
    reasons = [c.span.attributes["connection.close_reason"] for c in collector.wait_for_connections(2)]
    assert reasons == ["idle_timeout", "idle_timeout"]


def test_reload_writes_the_connections_of_the_workers_that_leave(stage: Stage) -> None:
    collector = stage.collector()
    balancer = stage.balancer(stage.backend(), collector=collector)
    assert balancer.get("/a").status == 200
    balancer.reload()
    connection = only_connection(collector)
    assert connection.span.attributes["lb.generation"] == 1
    assert connection.span.attributes["connection.close_reason"] in ("shutdown", "drain")
    assert_links(attempts(collector.wait_for_trees(1)), connection)


def test_connections_of_requests_that_are_not_traced_are_not_traced(stage: Stage) -> None:
    collector = stage.collector()
    balancer = stage.balancer(stage.backend(), collector=collector)
    unsampled = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
    assert balancer.get("/", unsampled).status == 200
    balancer.close()
    assert collector.posts == []


def test_turned_off_there_are_neither_traces_nor_links(stage: Stage) -> None:
    collector = stage.collector()
    backends = (stage.backend(), stage.keep(Http2Backend()))
    balancer = stage.balancer(backends, "--no-connection-traces", collector=collector)
    assert [balancer.get().status for _ in backends] == [200, 200]
    balancer.close()
    assert collector.connections == []
    assert all(span.links == [] for tree in collector.wait_for_trees(2) for span in tree)


def test_console_shows_connections_and_links(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), "--otel-exporter", "console")
    assert balancer.get("/x").status == 200
    balancer.signal(signal.SIGTERM)
    assert balancer.wait_for_exit() == 0
    output = balancer.output()
    headline = next(line for line in output.splitlines() if line.startswith("connection w0-1 to 127.0.0.1:"))
    assert "shutdown" in headline
    link = next(line for line in output.splitlines() if "↗" in line)
    trace, span = (link.split(f"{word} ")[1].split()[0] for word in ("trace", "span"))
    assert f"trace {trace}" in output.split(headline)[1]
    assert link.endswith("connection.id=w0-1")
    assert len(span) == 16


def test_connections_to_nginx_add_up(stage: Stage) -> None:
    """Whatever a real server does with its connections, each attempt leads to the one that it used."""
    nginx: Nginx = stage.nginx(file=b"content")
    collector = stage.collector()
    balancer = stage.balancer(nginx, collector=collector)
    client = stage.client(balancer)
    for _ in range(3):
        client.send(message.request("/file"))
        assert client.receive_response().body == b"content"
    client.close()
    balancer.close()
    connections = {tree.span.span_id: tree for tree in collector.connections}
    assert connections
    for span in attempts(collector.wait_for_trees(3)):
        assert span.link.span_id in connections
    answered = sum(int(str(c.span.attributes["connection.requests_answered"])) for c in connections.values())
    assert answered == 3
