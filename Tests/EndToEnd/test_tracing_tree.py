"""The spans of one request: tree, attributes, status, identity and propagation."""

from __future__ import annotations

import re
import threading

import pytest

from harness import message
from harness.backends import (
    BackendConnection,
    Script,
    UnixBackend,
    answer_then,
    close_at_once,
    echo,
    hello,
    never_answer,
    refused_port,
    reset_at_once,
    serve,
)
from harness.balancer import Balancer
from harness.collector import Collector, for_target
from harness.spans import FLAG_HAS_IS_REMOTE, FLAG_IS_REMOTE, Span, Tree
from harness.stage import Addressed, Stage
from harness.wire import PeerClosed, Request

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
SAMPLED, RANDOM = 0x01, 0x02
LOW_CARDINALITY = re.compile(r"[a-z][a-z0-9_]*")

FRESH = [
    "proxy_request SERVER",
    "  backend_selection INTERNAL",
    "  backend_connection INTERNAL",
    "    pool_acquire INTERNAL",
    "    tcp_connect INTERNAL",
    "  backend_request CLIENT",
    "  response_streaming INTERNAL",
]
REUSED = [line for line in FRESH if "tcp_connect" not in line]
NOT_CONNECTED = FRESH[:5]
"""What a request leaves behind that never got a connection."""


class Traced:
    """A balancer with a collector, in front of `backends`."""

    def __init__(self, stage: Stage, backends: Addressed | list[Addressed | str], *flags: str) -> None:
        self.collector: Collector = stage.collector()
        self.balancer: Balancer = stage.balancer(backends, *flags, collector=self.collector)

    def tree_of(self, request: bytes) -> Tree:
        """Sends one request and returns its tree."""
        self.balancer.exchange(request)
        return self.collector.wait_for_tree()


def traceparent(request: Request) -> tuple[str, str, str, int]:
    """Version, trace id, parent id and flags of an outgoing request (W3C Trace Context §3.2)."""
    value = request.get("traceparent")
    match = re.fullmatch("([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", value or "")
    assert match, f"not a traceparent: {value}"
    return match[1], match[2], match[3], int(match[4], 16)


# The tree


def test_first_request_has_the_whole_tree(stage: Stage) -> None:
    tree = Traced(stage, stage.backend()).tree_of(message.request("/"))
    assert tree.outline() == FRESH


def test_request_on_a_reused_connection_has_no_connect(stage: Stage) -> None:
    traced = Traced(stage, stage.backend())
    for target in ("/first", "/second"):
        traced.balancer.get(target)
    first, second = traced.collector.wait_for_trees(2)
    assert (first.outline(), second.outline()) == (FRESH, REUSED)
    assert first.one("pool_acquire").attributes["pool.outcome"] == "created"
    assert second.one("pool_acquire").attributes["pool.outcome"] == "reused"
    connections = [tree.one("backend_connection").attributes for tree in (first, second)]
    assert [c["connection.from_pool"] for c in connections] == [False, True]
    assert connections[0]["connection.id"] == connections[1]["connection.id"]
    assert re.fullmatch(r"w0-\d+", str(connections[0]["connection.id"]))


def test_backend_with_a_name_shows_its_resolution(stage: Stage) -> None:
    backend = stage.backend()
    tree = Traced(stage, [f"localhost:{backend.port}"]).tree_of(message.request("/"))
    assert tree.outline() == [*FRESH[:4], "    dns_resolution INTERNAL", *FRESH[4:]]
    resolution = tree.one("dns_resolution").attributes
    assert resolution["dns.hostname"] == "localhost"
    assert "127.0.0.1" in resolution["dns.answers"]  # type: ignore[operator]
    assert isinstance(resolution["dns.cached"], bool)
    assert tree.one("tcp_connect").attributes["net.peer.name"] == "localhost"
    assert tree.one("backend_selection").attributes["lb.selected_backend"] == f"localhost:{backend.port}"


def test_backend_on_a_unix_socket_has_no_address(stage: Stage) -> None:
    backend = stage.keep(UnixBackend(stage.folder() / "socket"))
    tree = Traced(stage, backend).tree_of(message.request("/"))
    assert tree.outline() == FRESH
    assert tree.span.attributes["backend.host"] == backend.address
    assert set(tree.one("tcp_connect").attributes) == {"net.peer.name"}


def test_request_that_waited_for_a_connection_says_so(stage: Stage) -> None:
    may_answer = threading.Event()

    def first_waits(connection: BackendConnection) -> None:
        connection.receive_request()
        assert may_answer.wait(10)
        connection.send(message.response(b"ok"))
        serve(hello)(connection)

    backend = stage.backend(first_waits)
    traced = Traced(stage, backend, "--upstream-max-connections", "1", "--upstream-queue-timeout", "10")
    first, second = stage.client(traced.balancer), stage.client(traced.balancer)
    first.send(message.request("/first"))
    backend.wait_for_requests(1)
    second.send(message.request("/second"))
    assert second.is_silent_for(0.2)
    may_answer.set()
    assert first.receive_response().status == second.receive_response().status == 200
    waited = traced.collector.wait_for_tree(for_target("/second"))
    assert waited.outline() == REUSED
    assert waited.one("pool_acquire").attributes["pool.outcome"] == "waited"
    assert waited.one("pool_acquire").end_ns - waited.one("pool_acquire").start_ns > 100_000_000


def test_spans_follow_the_time_line_of_the_request(stage: Stage) -> None:
    """Each phase shows where the time went: here 0.2 s before the head, 0.2 s in the body."""

    def slow(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.is_silent_for(0.2)
        connection.send(message.response_head("Content-Length: 2") + b"a")
        connection.is_silent_for(0.2)
        connection.send(b"b")

    tree = Traced(stage, stage.backend(slow)).tree_of(message.request("/"))
    tenth = 100_000_000
    request, streaming = tree.one("backend_request"), tree.one("response_streaming")
    assert request.end_ns - request.start_ns > tenth
    assert streaming.end_ns - streaming.start_ns > tenth
    assert streaming.start_ns - request.start_ns > tenth
    assert tree.span.end_ns >= streaming.end_ns


# Attributes


def test_every_attribute_of_a_plain_request(stage: Stage) -> None:
    """The whole contract at once: a key more or less fails too."""
    backend = stage.backend(serve(echo))
    traced = Traced(stage, backend)
    client = stage.client(traced.balancer)
    client_port = client.sock.getsockname()[1]
    client.send(message.request("/path?q=1", "User-Agent: probe/1", method="POST", body=b"hello", host="site.test:81"))
    assert client.receive_response().body == b"hello"
    tree = traced.collector.wait_for_tree()
    url = "http://site.test:81/path?q=1"
    assert tree.span.attributes == {
        "http.method": "POST",
        "http.url": url,
        "http.status_code": 200,
        "http.flavor": "1.1",
        "http.host": "site.test:81",
        "http.user_agent": "probe/1",
        "http.request_content_length": 5,
        "http.response_content_length": 5,
        "net.peer.ip": "127.0.0.1",
        "net.peer.port": client_port,
        "backend.id": 0,
        "backend.host": backend.address,
        "lb.worker": 0,
        "lb.generation": tree.span.attributes["lb.generation"],
    }
    assert isinstance(tree.span.attributes["lb.generation"], int)
    assert tree.one("backend_selection").attributes == {
        "lb.strategy": "round_robin",
        "lb.backend_count": 1,
        "lb.healthy_count": 1,
        "lb.selected_backend": backend.address,
    }
    connection = tree.one("backend_connection").attributes
    assert connection == {
        "backend.host": backend.address,
        "connection.from_pool": False,
        "connection.id": connection["connection.id"],
    }
    pool = tree.one("pool_acquire").attributes
    assert set(pool) == {"pool.outcome", "pool.idle_count", "pool.active_count"}
    assert tree.one("tcp_connect").attributes == {
        "net.peer.name": "127.0.0.1",
        "net.peer.port": backend.port,
        "net.peer.ip": "127.0.0.1",
    }
    assert tree.one("backend_request").attributes == {
        "http.method": "POST",
        "http.url": url,
        "http.status_code": 200,
        "http.flavor": "1.1",
    }
    assert tree.one("response_streaming").attributes == {
        "http.body.type": "content_length",
        "http.body.expected_length": 5,
        "http.body.bytes_transferred": 5,
        "http.body.had_error": False,
    }


UNTIL_CLOSE = message.response_head() + b"until close"


@pytest.mark.parametrize(
    "answer, body_type, size",
    [
        (message.response(b"12345"), "content_length", 5),
        (message.chunked_response([b"123", b"45"]), "chunked", 5),
        (UNTIL_CLOSE, "until_close", 11),
        (message.response_head(status="204 No Content"), "none", 0),
    ],
)
def test_body_type_and_size_are_told(stage: Stage, answer: bytes, body_type: str, size: int) -> None:
    def answers(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(answer)
        if answer == UNTIL_CLOSE:
            connection.close()

    tree = Traced(stage, stage.backend(answers)).tree_of(message.request("/"))
    streaming = tree.one("response_streaming").attributes
    assert (streaming["http.body.type"], streaming["http.body.bytes_transferred"]) == (body_type, size)
    assert ("http.body.expected_length" in streaming) == (body_type == "content_length")
    assert streaming["http.body.had_error"] is False
    assert tree.span.attributes["http.response_content_length"] == size


def test_http10_client_is_told_apart(stage: Stage) -> None:
    tree = Traced(stage, stage.backend()).tree_of(message.request("/", version="1.0"))
    assert tree.span.attributes["http.flavor"] == "1.0"
    assert tree.one("backend_request").attributes["http.flavor"] == "1.1"


def test_head_request_transfers_nothing(stage: Stage) -> None:
    answer = message.response_head("Content-Length: 1000")
    traced = Traced(stage, stage.backend(serve(lambda request: answer)))
    tree = traced.tree_of(message.request("/", method="HEAD"))
    assert tree.one("response_streaming").attributes["http.body.bytes_transferred"] == 0
    assert tree.span.attributes["http.response_content_length"] == 0


def test_worker_and_backend_numbers_are_right(stage: Stage) -> None:
    backends = [stage.backend(), stage.backend()]
    collector = stage.collector()
    balancer = stage.balancer(backends, collector=collector, workers=2)
    for number in range(20):
        balancer.get(f"/{number}")
    found = collector.wait_for_trees(20)
    for tree in found:
        attributes = tree.span.attributes
        assert attributes["backend.host"] == backends[int(str(attributes["backend.id"]))].address
        assert str(tree.one("backend_connection").attributes["connection.id"]).startswith(
            f"w{attributes['lb.worker']}-"
        )
    assert {tree.span.attributes["backend.id"] for tree in found} == {0, 1}
    assert {tree.span.attributes["lb.worker"] for tree in found} <= {0, 1}


@pytest.mark.parametrize(
    "name",
    [
        "AWSAccessKeyId",
        "Signature",
        "sig",
        "X-Goog-Signature",
        "X-Amz-Signature",
        "X-Amz-Credential",
        "X-Amz-Security-Token",
    ],
)
def test_secrets_in_the_query_are_redacted_in_spans_only(stage: Stage, name: str) -> None:
    backend = stage.backend()
    tree = Traced(stage, backend).tree_of(message.request(f"/f?a=1&{name}=s3cret&b=2"))
    for span in (tree.span, tree.one("backend_request")):
        assert span.attributes["http.url"] == f"http://example.test/f?a=1&{name}=REDACTED&b=2"
    assert backend.requests[0].target == f"/f?a=1&{name}=s3cret&b=2"


def test_similar_query_names_are_not_redacted(stage: Stage) -> None:
    tree = Traced(stage, stage.backend()).tree_of(message.request("/f?design=1&sign=2&xsig=3&sigx=4"))
    assert tree.span.attributes["http.url"] == "http://example.test/f?design=1&sign=2&xsig=3&sigx=4"


def test_userinfo_never_gets_into_a_span(stage: Stage) -> None:
    tree = Traced(stage, stage.backend()).tree_of(message.request("http://user:s3cret@site.test/x", host="site.test"))
    assert all("s3cret" not in str(value) for span in tree for value in span.attributes.values())


def test_long_values_are_cut_at_1024_bytes(stage: Stage) -> None:
    tree = Traced(stage, stage.backend()).tree_of(message.request("/" + "a" * 5000, f"User-Agent: {'u' * 5000}"))
    url = str(tree.span.attributes["http.url"])
    assert len(url.encode()) == 1024 and url == ("http://example.test/" + "a" * 5000)[:1024]
    assert tree.span.attributes["http.user_agent"] == "u" * 1024


def test_cut_values_are_counted(stage: Stage) -> None:
    """The URL on two spans, the user agent on one; the total is in the exporter's last line."""
    traced = Traced(stage, stage.backend())
    traced.tree_of(message.request("/" + "a" * 5000, f"User-Agent: {'u' * 5000}"))
    traced.balancer.close()
    assert re.search(r"\bvalues_cut=3\b", traced.balancer.log()), traced.balancer.log()


def test_cut_never_splits_a_character(stage: Stage) -> None:
    """1,023 bytes and then one of two bytes: the cut is before it."""
    agent = ("u" * 1023 + "é").encode().decode("latin-1")
    tree = Traced(stage, stage.backend()).tree_of(message.request("/", f"User-Agent: {agent}"))
    assert tree.span.attributes["http.user_agent"] == "u" * 1023


def test_what_is_not_utf8_is_percent_escaped(stage: Stage) -> None:
    tree = Traced(stage, stage.backend()).tree_of(message.request("/", "User-Agent: caf\xe9 \xff!"))
    assert tree.span.attributes["http.user_agent"] == "caf%E9 %FF!"


def test_utf8_is_kept(stage: Stage) -> None:
    agent = "grüße".encode().decode("latin-1")
    tree = Traced(stage, stage.backend()).tree_of(message.request("/", f"User-Agent: {agent}"))
    assert tree.span.attributes["http.user_agent"] == "grüße"


# Identity and propagation


def test_trace_begins_here_without_a_parent(stage: Stage) -> None:
    backend = stage.backend()
    tree = Traced(stage, backend).tree_of(message.request("/"))
    assert tree.span.parent_span_id == ""
    assert {span.flags for span in tree} == {FLAG_HAS_IS_REMOTE | SAMPLED | RANDOM}
    version, trace_id, parent_id, flags = traceparent(backend.requests[0])
    assert (version, trace_id, flags) == ("00", tree.span.trace_id, SAMPLED | RANDOM)
    assert parent_id == tree.one("backend_request").span_id


@pytest.mark.parametrize("flags", ["01", "03"])
def test_trace_of_the_caller_is_continued(stage: Stage, flags: str) -> None:
    backend = stage.backend()
    parent = f"traceparent: 00-{TRACE_ID}-{PARENT_ID}-{flags}"
    tree = Traced(stage, backend).tree_of(message.request("/", parent, "tracestate: a=1,b=2"))
    assert (tree.span.trace_id, tree.span.parent_span_id) == (TRACE_ID, PARENT_ID)
    assert tree.span.flags == FLAG_HAS_IS_REMOTE | FLAG_IS_REMOTE | int(flags, 16)
    assert {s.flags for s in tree if s is not tree.span} == {FLAG_HAS_IS_REMOTE | int(flags, 16)}
    assert {span.trace_state for span in tree} == {"a=1,b=2"}
    sent = backend.requests[0]
    assert traceparent(sent) == ("00", TRACE_ID, tree.one("backend_request").span_id, int(flags, 16))
    assert sent.all("tracestate") == ["a=1,b=2"]


def test_several_tracestate_fields_are_carried(stage: Stage) -> None:
    backend = stage.backend()
    parent = f"traceparent: 00-{TRACE_ID}-{PARENT_ID}-01"
    tree = Traced(stage, backend).tree_of(message.request("/", parent, "tracestate: a=1", "tracestate: b=2"))
    carried = [item.strip() for item in ",".join(backend.requests[0].all("tracestate")).split(",")]
    assert carried == ["a=1", "b=2"]
    assert [item.strip() for item in tree.span.trace_state.split(",")] == carried


def test_field_names_in_any_case_are_understood(stage: Stage) -> None:
    tree = Traced(stage, stage.backend()).tree_of(message.request("/", f"TraceParent: 00-{TRACE_ID}-{PARENT_ID}-01"))
    assert tree.span.trace_id == TRACE_ID


@pytest.mark.parametrize(
    "value",
    [
        f"cc-{TRACE_ID}-{PARENT_ID}-01",
        f"cc-{TRACE_ID}-{PARENT_ID}-01-what-the-future-will-be-like",
        f"01-{TRACE_ID}-{PARENT_ID}-09",
    ],
)
def test_later_version_is_read_as_far_as_known(stage: Stage, value: str) -> None:
    """W3C Trace Context §4.3: parse the known part; what we send is version 00."""
    backend = stage.backend()
    tree = Traced(stage, backend).tree_of(message.request("/", f"traceparent: {value}"))
    assert (tree.span.trace_id, tree.span.parent_span_id) == (TRACE_ID, PARENT_ID)
    assert traceparent(backend.requests[0])[0] == "00"


INVALID_PARENTS = {
    "version ff": f"ff-{TRACE_ID}-{PARENT_ID}-01",
    "version 00 with more": f"00-{TRACE_ID}-{PARENT_ID}-01-more",
    "later version, glued on": f"cc-{TRACE_ID}-{PARENT_ID}-01x",
    "zero trace id": f"00-{'0' * 32}-{PARENT_ID}-01",
    "zero parent id": f"00-{TRACE_ID}-{'0' * 16}-01",
    "upper case": f"00-{TRACE_ID.upper()}-{PARENT_ID}-01",
    "short trace id": f"00-{TRACE_ID[1:]}-{PARENT_ID}-01",
    "long parent id": f"00-{TRACE_ID}-{PARENT_ID}0-01",
    "not hexadecimal": f"00-{TRACE_ID[:-1]}g-{PARENT_ID}-01",
    "short flags": f"00-{TRACE_ID}-{PARENT_ID}-1",
    "wrong separator": f"00_{TRACE_ID}_{PARENT_ID}_01",
    "short version": f"0-{TRACE_ID}-{PARENT_ID}-01",
    "nothing": "",
    "two values in one field": f"00-{TRACE_ID}-{PARENT_ID}-01, 00-{TRACE_ID}-{PARENT_ID}-01",
}


def assert_new_trace(tree: Tree, sent: Request) -> None:
    assert tree.span.trace_id != TRACE_ID
    assert (tree.span.parent_span_id, tree.span.trace_state) == ("", "")
    assert traceparent(sent)[1] == tree.span.trace_id
    assert sent.all("tracestate") == []


@pytest.mark.parametrize("name", INVALID_PARENTS)
def test_invalid_parent_starts_a_new_trace(stage: Stage, name: str) -> None:
    backend = stage.backend()
    request = message.request("/", f"traceparent: {INVALID_PARENTS[name]}", "tracestate: a=1")
    assert_new_trace(Traced(stage, backend).tree_of(request), backend.requests[0])


def test_two_parents_are_no_parent(stage: Stage) -> None:
    backend = stage.backend()
    parent = f"traceparent: 00-{TRACE_ID}-{PARENT_ID}-01"
    tree = Traced(stage, backend).tree_of(message.request("/", parent, parent, "tracestate: a=1"))
    assert_new_trace(tree, backend.requests[0])


def test_tracestate_without_a_parent_is_dropped(stage: Stage) -> None:
    backend = stage.backend()
    assert_new_trace(Traced(stage, backend).tree_of(message.request("/", "tracestate: a=1")), backend.requests[0])


def test_unsampled_request_leaves_no_spans(stage: Stage) -> None:
    backend = stage.backend()
    traced = Traced(stage, backend)
    traced.balancer.get("/quiet", f"traceparent: 00-{TRACE_ID}-{PARENT_ID}-00", "tracestate: a=1")
    traced.balancer.get("/loud")
    assert traced.collector.wait_for_tree(for_target("/loud")).span.trace_id != TRACE_ID
    assert len(traced.collector.wait_for_trees(1)) == 1
    quiet = backend.requests[0]
    assert traceparent(quiet)[1] == TRACE_ID
    assert traceparent(quiet)[3] & SAMPLED == 0
    assert quiet.all("tracestate") == ["a=1"]


def test_ids_never_repeat_across_workers(stage: Stage) -> None:
    """Both workers come from one process; a generator seeded before the fork would repeat itself."""
    collector = stage.collector()
    balancer = stage.balancer(stage.backend(), collector=collector, workers=2)
    for number in range(60):
        balancer.get(f"/{number}")
    found = collector.wait_for_trees(60)
    assert len({tree.span.trace_id for tree in found}) == 60
    ids = [span.span_id for tree in found for span in tree]
    assert len(set(ids)) == len(ids)


# Requests refused here


@pytest.mark.parametrize(
    "request_bytes, status",
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400),
        (b"GET / HTTP/7.0\r\nHost: h\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (message.request("/", "X: " + "x" * 40_000), 431),
        (message.request("/" + "x" * 9000), 414),
        (message.request("/", "Content-Length: 2000", method="POST"), 413),
        (message.request("a:1", method="CONNECT"), 405),
    ],
)
def test_refused_request_has_a_span_of_its_own(stage: Stage, request_bytes: bytes, status: int) -> None:
    traced = Traced(stage, stage.backend(), "--max-body", "1k")
    client = stage.client(traced.balancer)
    client.send(request_bytes)
    assert client.receive_response().status == status
    tree = traced.collector.wait_for_tree()
    assert tree.outline()[0] == "proxy_request SERVER"
    assert tree.all("backend_selection") == []
    assert tree.span.attributes["http.status_code"] == status
    assert tree.span.status == ("ERROR" if status >= 500 else "UNSET")
    assert LOW_CARDINALITY.fullmatch(str(tree.span.error_type))
    assert tree.span.attributes["net.peer.ip"] == "127.0.0.1"


def test_refusal_by_timeout_has_a_span(stage: Stage) -> None:
    traced = Traced(stage, stage.backend(), "--request-head-timeout", "0.3")
    client = stage.client(traced.balancer)
    client.send(b"GET / HTTP/1.1\r\n")
    assert client.receive_response().status == 408
    tree = traced.collector.wait_for_tree()
    assert tree.span.attributes["http.status_code"] == 408
    assert LOW_CARDINALITY.fullmatch(str(tree.span.error_type))


def test_connection_that_sent_no_request_has_no_span(stage: Stage) -> None:
    traced = Traced(stage, stage.backend())
    traced.balancer.connect().close()
    traced.balancer.get("/only")
    assert len(traced.collector.wait_for_trees(1)) == 1


# Statuses from the backend


@pytest.mark.parametrize(
    "status, server, client",
    [
        ("200 OK", "UNSET", "UNSET"),
        ("302 Found", "UNSET", "UNSET"),
        ("404 Not Found", "UNSET", "ERROR"),
        ("500 Internal Server Error", "ERROR", "ERROR"),
        ("503 Service Unavailable", "ERROR", "ERROR"),
    ],
)
def test_status_follows_the_span_kind(stage: Stage, status: str, server: str, client: str) -> None:
    backend = stage.backend(serve(lambda request: message.response(status=status)))
    tree = Traced(stage, backend).tree_of(message.request("/"))
    assert tree.outline() == FRESH
    assert (tree.span.status, tree.one("backend_request").status) == (server, client)
    code = int(status[:3])
    assert tree.span.attributes["http.status_code"] == code
    assert tree.one("backend_request").attributes["http.status_code"] == code


# Failures on the way


def assert_failed(span: Span, error_type: str) -> None:
    assert (span.status, span.error_type) == ("ERROR", error_type), span
    assert span.status_message, f"{span.name} has no description"


def test_refused_connection_is_told(stage: Stage) -> None:
    traced = Traced(stage, [f"127.0.0.1:{refused_port()}"], "--max-attempts", "1")
    tree = traced.tree_of(message.request("/"))
    assert tree.outline() == NOT_CONNECTED
    assert_failed(tree.one("tcp_connect"), "connect_refused")
    assert_failed(tree.span, "connect_refused")
    assert tree.one("backend_connection").status == "ERROR"
    assert tree.span.attributes["http.status_code"] == 502


def test_connect_timeout_is_told(stage: Stage) -> None:
    traced = Traced(stage, stage.black_hole(), "--connect-timeout", "0.3", "--max-attempts", "1")
    tree = traced.tree_of(message.request("/"))
    assert tree.outline() == NOT_CONNECTED
    assert_failed(tree.one("tcp_connect"), "connect_timeout")
    assert_failed(tree.span, "connect_timeout")
    assert tree.span.attributes["http.status_code"] == 504


def test_no_healthy_backend_is_told(stage: Stage) -> None:
    traced = Traced(stage, [f"127.0.0.1:{refused_port()}"], "--max-attempts", "1")
    assert [traced.balancer.get(f"/{n}").status for n in range(4)] == [502, 502, 502, 503]
    tree = traced.collector.wait_for_tree(for_target("/3"))
    assert (tree.span.status, tree.span.attributes["http.status_code"]) == ("ERROR", 503)
    assert LOW_CARDINALITY.fullmatch(str(tree.span.error_type))
    assert tree.all("backend_connection") == []
    assert tree.one("backend_selection").attributes["lb.healthy_count"] == 0


def test_third_failure_is_marked_on_its_attempt(stage: Stage) -> None:
    refused = f"127.0.0.1:{refused_port()}"
    traced = Traced(stage, [refused], "--max-attempts", "1")
    for number in range(3):
        traced.balancer.get(f"/{number}")
    found = traced.collector.wait_for_trees(3)
    marks = [event for tree in found[:2] for span in tree for event in span.events]
    assert [event.name for event in marks if event.name == "backend_marked_unhealthy"] == []
    (event,) = [e for span in found[2] for e in span.events if e.name == "backend_marked_unhealthy"]
    assert event.attributes == {"backend.host": refused, "failures": 3}


@pytest.mark.parametrize(
    "failure, error_type",
    [(reset_at_once, "upstream_reset"), (close_at_once, "upstream_closed|upstream_reset|connection_closed")],
)
def test_end_before_the_head_is_told(stage: Stage, failure: Script, error_type: str) -> None:
    tree = Traced(stage, stage.backend(failure)).tree_of(message.request("/"))
    assert tree.outline() == FRESH[:6]
    request = tree.one("backend_request")
    assert request.status == tree.span.status == "ERROR"
    assert re.fullmatch(error_type, str(request.error_type))
    assert tree.span.error_type == request.error_type
    assert tree.span.attributes["http.status_code"] == 502
    assert "http.status_code" not in request.attributes


def test_nonsense_from_the_backend_is_told(stage: Stage) -> None:
    backend = stage.backend(serve(lambda request: b"nonsense\r\n\r\n"))
    tree = Traced(stage, backend).tree_of(message.request("/"))
    assert_failed(tree.one("backend_request"), "upstream_protocol_error")
    assert_failed(tree.span, "upstream_protocol_error")
    assert tree.span.attributes["http.status_code"] == 502


def test_timeout_before_the_head_is_told(stage: Stage) -> None:
    traced = Traced(stage, stage.backend(never_answer), "--response-head-timeout", "0.3")
    tree = traced.tree_of(message.request("/"))
    assert tree.outline() == FRESH[:6]
    assert_failed(tree.one("backend_request"), "upstream_timeout")
    assert_failed(tree.span, "upstream_timeout")
    assert tree.span.attributes["http.status_code"] == 504


def half_an_answer(end: str) -> Script:
    def script(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(message.response_head("Content-Length: 10") + b"half")
        if end == "reset":
            connection.is_silent_for(0.1)
            connection.reset()
        elif end == "close":
            connection.close()
        else:
            connection.wait_for_end()

    return script


@pytest.mark.parametrize(
    "end, error_type",
    [
        ("reset", "upstream_reset"),
        ("close", "upstream_closed|upstream_reset|connection_closed"),
        ("stall", "upstream_timeout"),
    ],
)
def test_failure_in_the_body_is_told(stage: Stage, end: str, error_type: str) -> None:
    traced = Traced(stage, stage.backend(half_an_answer(end)), "--upstream-stall-timeout", "0.3")
    client = stage.client(traced.balancer)
    client.send(message.request("/"))
    with pytest.raises((PeerClosed, ConnectionResetError)):
        client.receive_response()
    tree = traced.collector.wait_for_tree()
    assert tree.outline() == FRESH
    streaming = tree.one("response_streaming")
    assert streaming.attributes["http.body.had_error"] is True
    assert streaming.attributes["http.body.expected_length"] == 10
    assert streaming.attributes["http.body.bytes_transferred"] == 4
    assert (streaming.status, tree.span.status) == ("ERROR", "ERROR")
    assert re.fullmatch(error_type, str(tree.span.error_type))
    assert tree.span.attributes["http.status_code"] == 200
    assert tree.span.attributes["http.response_content_length"] == 4


def test_client_gone_before_the_answer_is_told(stage: Stage) -> None:
    backend = stage.backend(never_answer)
    traced = Traced(stage, backend)
    client = traced.balancer.connect()
    client.send(message.request("/"))
    backend.wait_for_requests(1)
    client.reset()
    tree = traced.collector.wait_for_tree()
    assert_failed(tree.span, "client_closed")
    assert "http.status_code" not in tree.span.attributes
    assert tree.all("response_streaming") == []


def test_client_gone_in_the_body_is_told(stage: Stage) -> None:
    def endless(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(message.response_head("Content-Length: 1000000000"))
        for _ in range(1000):
            connection.send(b"x" * 1_000_000)

    traced = Traced(stage, stage.backend(endless))
    client = traced.balancer.connect()
    client.send(message.request("/"))
    client.receive_response_head()
    client.reset()
    tree = traced.collector.wait_for_tree()
    assert_failed(tree.span, "client_closed")
    assert tree.one("response_streaming").attributes["http.body.had_error"] is True
    assert tree.one("backend_request").attributes["http.status_code"] == 200


@pytest.mark.parametrize(
    "queue, error_type",
    [
        (["--upstream-queue", "0"], "pool_queue_full"),
        (["--upstream-queue", "5", "--upstream-queue-timeout", "0.2"], "pool_queue_timeout"),
    ],
)
def test_request_that_got_no_connection_is_told(stage: Stage, queue: list[str], error_type: str) -> None:
    backend = stage.backend(never_answer)
    traced = Traced(stage, backend, "--upstream-max-connections", "1", *queue)
    first = stage.client(traced.balancer)
    first.send(message.request("/first"))
    backend.wait_for_requests(1)
    assert traced.balancer.get("/second").status == 503
    first.reset()
    tree = traced.collector.wait_for_tree(for_target("/second"))
    assert_failed(tree.span, error_type)
    assert tree.span.attributes["http.status_code"] == 503
    assert tree.outline() == NOT_CONNECTED[:4]
    assert tree.one("pool_acquire").status == "ERROR"


def test_client_that_stopped_sending_is_told(stage: Stage) -> None:
    traced = Traced(stage, stage.backend(), "--client-body-timeout", "0.2")
    tree = traced.tree_of(message.request("/", "Content-Length: 10", method="POST") + b"half")
    assert tree.span.attributes["http.status_code"] == 408
    assert (tree.span.status, tree.span.error_type) == ("UNSET", "client_timeout")
    assert tree.one("backend_connection").status == "UNSET", "not the backend's fault"


def test_request_cut_by_the_end_of_the_drain_is_told(stage: Stage) -> None:
    backend = stage.backend(never_answer)
    traced = Traced(stage, backend, "--drain-timeout", "0.2")
    client = stage.client(traced.balancer)
    client.send(message.request("/"))
    backend.wait_for_requests(1)
    traced.balancer.close()
    assert_failed(traced.collector.wait_for_tree().span, "drain_timeout")


# Retries


def test_failover_shows_both_attempts(stage: Stage) -> None:
    refused, good = f"127.0.0.1:{refused_port()}", stage.backend()
    traced = Traced(stage, [refused, good])
    for number in range(2):
        assert traced.balancer.get(f"/{number}").status == 200
    tree = next(t for t in traced.collector.wait_for_trees(2) if len(t.all("backend_selection")) == 2)
    attempts = [line for line in tree.outline() if "backend_" in line]
    assert attempts == [
        "  backend_selection INTERNAL",
        "  backend_connection INTERNAL",
        "  backend_selection INTERNAL",
        "  backend_connection INTERNAL",
        "  backend_request CLIENT",
    ]
    selected = [span.attributes["lb.selected_backend"] for span in tree.all("backend_selection")]
    assert selected == [refused, good.address]
    assert [span.status for span in tree.all("backend_connection")] == ["ERROR", "UNSET"]
    assert tree.span.attributes["lb.retry_count"] == 1
    assert tree.span.attributes["backend.host"] == good.address
    assert tree.span.status == "UNSET" and tree.span.error_type is None
    assert tree.span.event("retry_triggered").attributes == {"retry.reason": "connect_failed", "retry.attempt": 1}
    marked = [span.name for span in tree if span.has_event("retry_triggered")]
    assert len(marked) == 2, f"also the failed attempt carries the event: {marked}"


def test_retry_after_a_stale_connection_shows_both_attempts(stage: Stage) -> None:
    backend = stage.backend(answer_then(message.response(b"ok"), reset_at_once), serve(hello))
    traced = Traced(stage, backend)
    assert [traced.balancer.get(target).status for target in ("/first", "/second")] == [200, 200]
    tree = traced.collector.wait_for_tree(for_target("/second"))
    assert tree.outline() == REUSED[:5] + FRESH[1:]
    failed, final = tree.all("backend_request")
    assert failed.status == "ERROR" and "http.status_code" not in failed.attributes
    assert failed.event("retry_triggered").attributes["retry.reason"] == "connection_closed_before_response"
    assert "http.resend_count" not in failed.attributes
    assert final.attributes["http.resend_count"] == 1
    assert tree.span.attributes["lb.retry_count"] == 1
    assert tree.span.event("retry_triggered").attributes["retry.attempt"] == 1
    sent = [traceparent(request)[2] for request in backend.requests[1:]]
    assert sent == [failed.span_id, final.span_id]


def test_plain_request_has_no_retry_facts(stage: Stage) -> None:
    tree = Traced(stage, stage.backend()).tree_of(message.request("/"))
    assert "lb.retry_count" not in tree.span.attributes
    assert all(not span.events for span in tree)


def denied(stage: Stage, failure: Script, request: bytes) -> Tree:
    """The tree of a request that failed on a reused connection and was not retried."""
    backend = stage.backend(answer_then(message.response(b"ok"), failure), serve(hello))
    traced = Traced(stage, backend)
    assert traced.balancer.get("/first").status == 200
    assert traced.balancer.exchange(request).status == 502
    return traced.collector.wait_for_tree(for_target("/second"))


def test_retry_denied_to_a_post_says_why(stage: Stage) -> None:
    tree = denied(stage, reset_at_once, message.request("/second", method="POST", body=b"x"))
    assert tree.span.event("retry_denied").attributes["retry.verdict"] == "not_idempotent"
    assert not tree.span.has_event("retry_triggered")


def test_retry_denied_to_a_body_half_gone_says_why(stage: Stage) -> None:
    """The rest of the body comes only when the backend has taken, and lost, the beginning."""
    lost = threading.Event()

    def loses_the_beginning(connection: BackendConnection) -> None:
        connection.receive_request_head()
        connection.receive_exactly(5)
        connection.reset()
        lost.set()

    backend = stage.backend(answer_then(message.response(b"ok"), loses_the_beginning), serve(hello))
    traced = Traced(stage, backend)
    assert traced.balancer.get("/first").status == 200
    client = stage.client(traced.balancer)
    client.send(message.request("/second", "Content-Length: 10", method="PUT") + b"half.")
    assert lost.wait(10)
    assert client.receive_response().status == 502
    tree = traced.collector.wait_for_tree(for_target("/second"))
    assert tree.span.event("retry_denied").attributes["retry.verdict"] == "body_not_replayable"


def test_retry_denied_after_the_response_began_says_why(stage: Stage) -> None:
    def begins(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-")
        connection.close()

    tree = denied(stage, begins, message.request("/second"))
    assert tree.span.event("retry_denied").attributes["retry.verdict"] == "response_started"


def test_exhausted_attempts_say_so(stage: Stage) -> None:
    backends = [f"127.0.0.1:{refused_port()}" for _ in range(3)]
    tree = Traced(stage, list(backends), "--max-attempts", "2").tree_of(message.request("/"))
    assert len(tree.all("backend_connection")) == 2
    assert tree.span.event("retry_denied").attributes["retry.verdict"] == "attempts_exhausted"
    assert tree.span.attributes["lb.retry_count"] == 1


# Tunnels


def test_tunnel_is_one_request(stage: Stage) -> None:
    def switches(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(message.response_head("Connection: Upgrade", "Upgrade: raw", status="101 Switching Protocols"))
        connection.send(connection.receive_exactly(4))
        connection.wait_for_end()

    traced = Traced(stage, stage.backend(switches))
    client = stage.client(traced.balancer)
    client.send(message.request("/tunnel", "Connection: Upgrade", "Upgrade: raw"))
    assert client.receive_response().status == 101
    client.send(b"ping")
    assert client.receive_exactly(4) == b"ping"
    client.close()
    tree = traced.collector.wait_for_tree()
    assert tree.span.attributes["http.status_code"] == 101
    assert tree.span.status == "UNSET"


# Stable names on request


@pytest.mark.parametrize("mode", ["http", "http/dup"])
def test_stable_names_on_request(stage: Stage, mode: str) -> None:
    backend, collector = stage.backend(), stage.collector()
    environment = {"OTEL_SEMCONV_STABILITY_OPT_IN": mode}
    balancer = stage.balancer(backend, collector=collector, environment=environment)
    balancer.get("/path?q=1", "User-Agent: probe/1")
    tree = collector.wait_for_tree()
    stable = {
        "http.request.method": "GET",
        "url.path": "/path",
        "url.query": "q=1",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "client.address": "127.0.0.1",
        "network.protocol.version": "1.1",
        "user_agent.original": "probe/1",
    }
    assert stable.items() <= tree.span.attributes.items()
    client = tree.one("backend_request").attributes
    assert {"http.request.method": "GET", "url.full": "http://example.test/path?q=1"}.items() <= client.items()
    assert ("http.method" in tree.span.attributes) == (mode == "http/dup")
    assert ("http.url" in client) == (mode == "http/dup")
    assert tree.span.attributes["lb.worker"] == 0
