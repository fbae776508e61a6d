"""GOAWAY at every point and refused streams: what the client saw, and the whole tree with its events.

Each case is a script that the first connection plays once the request is here; whatever comes to another connection
is echoed. A tree is compared as `harness.picture` draws it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from harness.http2 import (
    Answer,
    Http2Backend,
    Http2BackendConnection,
    Http2Client,
    Http2Script,
    echo_http2,
    refuse_the_rest,
    serve_http2,
)
from harness.picture import picture
from harness.stage import Stage

Play = Callable[[Http2BackendConnection, int], None]

MOST = 2**31 - 1
RETRY = "* retry_triggered attempt=1 reason="
MAKING = ["    tcp_connect", "    h2_handshake"]


def root(outcome: str, *events: str) -> list[str]:
    return [f"proxy_request {outcome}", *[f"  {event}" for event in events]]


def attempt(outcome: str, *events: str, number: int = 0, streaming: str | None = "") -> list[str]:
    """An attempt that made its connection; `streaming` None when no response began."""
    where = f"retry={number} stream=1 w0-{number + 1}"
    error = " ERROR" if not outcome[0].isdigit() else ""
    return [
        "  backend_selection",
        f"  backend_request_h2 {outcome} {where}{error}",
        *[f"    {event}" for event in events],
        "    pool_acquire created",
        *MAKING,
        *([f"    response_streaming{streaming}"] if streaming is not None else []),
    ]


def lost(reason: str, *events: str, error: str = "upstream_reset") -> list[str]:
    """A tree of two attempts: the first is lost for `reason`, the second answers 200."""
    retry = RETRY + reason
    return [
        *root("200", retry),
        *attempt(error, *events, retry, streaming=None),
        *attempt("200", number=1),
    ]


def goaway(last: int, processed: str, code: str = "NO_ERROR", debug: str = "") -> str:
    shown = f" debug_data={debug}" if debug else ""
    return f"* goaway_received{shown} error_code={code} last_stream_id={last} processed={processed} stream_id=1"


def reset(code: str, by: str = "peer") -> str:
    return f"* stream_reset error_code={code} reset_by={by}"


@dataclass(frozen=True)
class Case:
    name: str
    play: Play
    tree: list[str]
    method: str = "GET"
    status: int = 200
    body: bytes = b""
    """What the client gets of an answer that is not the proxy's own."""
    reset: int | None = None
    flags: tuple[str, ...] = ()
    others: Http2Script = field(default_factory=lambda: serve_http2(echo_http2))
    """What further connections do."""


def answers(connection: Http2BackendConnection, stream: int) -> None:
    connection.answer(stream, b"done")


def says(*goaways: tuple[int, int, bytes], then: Play | None = None) -> Play:
    """Sends GOAWAYs (last stream, code, debug data), then goes on."""

    def play(connection: Http2BackendConnection, stream: int) -> None:
        for last, code, debug in goaways:
            connection.goaway(last, code, debug)
        if then:
            then(connection, stream)

    return play


def closes(connection: Http2BackendConnection, stream: int) -> None:
    connection.close()


def begins_then(play: Play) -> Play:
    def begin(connection: Http2BackendConnection, stream: int) -> None:
        connection.send_fields(stream, [(":status", "200")])
        connection.send_data(stream, b"some")
        play(connection, stream)

    return begin


def ends(connection: Http2BackendConnection, stream: int) -> None:
    connection.send_data(stream, b"thing", ends=True)


def resets(code: int) -> Play:
    return lambda connection, stream: connection.reset(stream, code)


def interim_then(play: Play) -> Play:
    def begin(connection: Http2BackendConnection, stream: int) -> None:
        connection.send_fields(stream, [(":status", "103"), ("link", "</a>")])
        play(connection, stream)

    return begin


def denied(reason: str, verdict: str) -> str:
    return f"* retry_denied reason={reason} verdict={verdict}"


def single(*events: str, outcome: str = "200") -> list[str]:
    return [*root(outcome), *attempt(outcome, *events)]


def failed(denial: str | None, *events: str, error: str = "upstream_reset") -> list[str]:
    """One attempt that was not repeated."""
    denials = [denial] if denial else []
    return [*root(f"502 {error} ERROR", *denials), *attempt(error, *events, streaming=None)]


def broken(*events: str, error: str = "upstream_reset") -> list[str]:
    """The response broke off."""
    return [
        *root(f"200 {error} ERROR"),
        *attempt("200", *events, streaming=f" {error} broken ERROR"),
    ]


CLOSED = "connection_closed_before_response"
CASES = [
    Case("below", says((0, 0, b"bye")), lost("goaway", goaway(0, "no", debug="bye")), method="POST"),
    Case(
        "below with an error",
        says((0, 11, b"")),
        lost("goaway", goaway(0, "no", "ENHANCE_YOUR_CALM")),
        method="POST",
    ),
    Case("below, then closed", says((0, 0, b""), then=closes), lost("goaway", goaway(0, "no")), method="POST"),
    Case("at", says((1, 0, b""), then=answers), single(goaway(1, "unknown")), method="POST", body=b"done"),
    Case(
        "above",
        says((5, 2, b"x y"), then=answers),
        single(goaway(5, "unknown", "INTERNAL_ERROR", "x y")),
        body=b"done",
    ),
    Case(
        "two steps",
        says((MOST, 0, b""), (1, 0, b""), then=answers),
        single(goaway(MOST, "unknown"), goaway(1, "unknown")),
        body=b"done",
    ),
    Case(
        "two steps, the second refuses",
        says((MOST, 0, b""), (0, 0, b"")),
        lost("goaway", goaway(MOST, "unknown"), goaway(0, "no")),
        method="POST",
    ),
    Case(
        "several in a row",
        says((MOST, 0, b""), (9, 0, b""), (5, 0, b""), (1, 0, b""), then=answers),
        single(*[goaway(last, "unknown") for last in (MOST, 9, 5, 1)]),
        body=b"done",
    ),
    Case(
        "rises, which is an error",
        says((1, 0, b""), (3, 0, b"")),
        lost(CLOSED, goaway(1, "unknown"), error="upstream_protocol_error"),
    ),
    Case(
        "at, then closed",
        says((1, 0, b""), then=closes),
        lost(CLOSED, goaway(1, "unknown"), error="upstream_closed"),
    ),
    Case(
        "at, then closed, not idempotent",
        says((1, 0, b""), then=closes),
        failed(denied(CLOSED, "not_idempotent"), goaway(1, "unknown"), error="upstream_closed"),
        method="POST",
        status=502,
    ),
    Case("after the head", begins_then(says((1, 0, b""), then=ends)), single(goaway(1, "unknown")), body=b"something"),
    Case(
        "after the head, then closed",
        begins_then(says((1, 0, b""), then=closes)),
        broken(goaway(1, "unknown"), error="upstream_closed"),
        body=b"some",
        reset=2,
    ),
    Case("after the head, below", begins_then(says((0, 0, b""))), broken(goaway(0, "no")), body=b"some", reset=2),
    Case(
        "after an interim response, below",
        interim_then(says((0, 0, b""))),
        failed(denied("goaway", "response_started"), goaway(0, "no")),
        status=502,
    ),
    Case("refused", resets(7), lost("refused_stream", reset("REFUSED_STREAM"))),
    Case("refused, not idempotent", resets(7), lost("refused_stream", reset("REFUSED_STREAM")), method="POST"),
    Case(
        "at, then refused",
        says((1, 0, b""), then=resets(7)),
        lost("refused_stream", goaway(1, "unknown"), reset("REFUSED_STREAM")),
        method="POST",
    ),
    Case("reset", resets(2), failed(None, reset("INTERNAL_ERROR")), status=502),
    Case("reset without an error", resets(0), failed(None, reset("NO_ERROR")), status=502),
    Case("reset in the body", begins_then(resets(11)), broken(reset("ENHANCE_YOUR_CALM")), body=b"some", reset=2),
    Case("reset in the body, no error", begins_then(resets(0)), broken(reset("NO_ERROR")), body=b"some", reset=2),
]


def first(play: Play) -> Http2Script:
    def script(connection: Http2BackendConnection) -> None:
        connection.start()
        stream = connection.next_request().stream_id
        connection.wait_for_stream_end(stream)
        play(connection, stream)
        connection.wait_for_end()

    return script


def ask(stage: Stage, port: int, method: str) -> Answer:
    client = stage.keep(Http2Client(port))
    return client.answer(client.request("/", method=method, body=b"hello" if method == "POST" else None))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "_"))
def test_goaway_and_reset(stage: Stage, case: Case) -> None:
    backend = stage.keep(Http2Backend(first(case.play), case.others))
    collector = stage.collector()
    balancer = stage.balancer(backend, *case.flags, collector=collector)
    answer = ask(stage, balancer.port, case.method)
    tree = collector.wait_for_tree()
    tree.assert_sound()
    assert picture(tree) == case.tree
    assert (answer.status, answer.reset) == (case.status, case.reset)
    is_retried = len(tree.all("backend_request_h2")) > 1
    if case.status == 200:
        assert answer.body == ((b"hello" if case.method == "POST" else b"") if is_retried else case.body)
    assert "taken out" not in balancer.log()


def test_early_answer_that_refuses_the_rest_is_no_failure(stage: Stage) -> None:
    """RFC 9113 §8.1: a whole response, then RST_STREAM with NO_ERROR, while the request's body is on its way."""

    backend = stage.keep(Http2Backend(refuse_the_rest))
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector)
    client = stage.keep(Http2Client(balancer.port))
    stream = client.h2.get_next_available_stream_id()
    client.send_fields(stream, client.request_fields("/", ("content-length", "100"), method="POST"))
    client.send_data(stream, b"some")
    answer = client.answer(stream)
    assert (answer.status, answer.body, answer.is_complete) == (413, b"no", True)
    tree = collector.wait_for_tree()
    assert picture(tree) == [
        "proxy_request 413",
        "  backend_selection",
        "  backend_request_h2 413 retry=0 stream=1 w0-1 ERROR",
        "    pool_acquire created",
        *MAKING,
        "    response_streaming",
    ]


def test_goaway_before_settings(stage: Stage) -> None:
    def leaves(connection: Http2BackendConnection) -> None:
        connection.goaway(0, 0, b"full")
        connection.wait_for_end()

    backend = stage.keep(Http2Backend(leaves, serve_http2(echo_http2)))
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector)
    assert ask(stage, balancer.port, "POST").body == b"hello"
    assert picture(collector.wait_for_tree()) == [
        *root("200", RETRY + "goaway"),
        "  backend_selection",
        "  backend_request_h2 upstream_closed retry=0 w0-1 ERROR",
        "    * goaway_received debug_data=full error_code=NO_ERROR last_stream_id=0 processed=no",
        f"    {RETRY}goaway",
        "    pool_acquire created",
        "    tcp_connect",
        "    h2_handshake upstream_closed ERROR",
        *attempt("200", number=1),
    ]
    assert "taken out" not in balancer.log()


def send_goaway_with_settings(connection: Http2BackendConnection, last: int) -> None:
    """Both in one write, so that they are read together."""
    connection.h2.initiate_connection()
    frame = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + last.to_bytes(4, "big") + bytes(4)
    connection.sock.sendall(connection.h2.data_to_send() + frame)


def test_goaway_with_the_settings(stage: Stage) -> None:
    """The request is opened on a connection that is being left: it does not go out, and goes to the next one."""

    def leaves(connection: Http2BackendConnection) -> None:
        send_goaway_with_settings(connection, MOST)
        connection.wait_for_end()

    backend = stage.keep(Http2Backend(leaves, serve_http2(echo_http2)))
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector)
    assert ask(stage, balancer.port, "POST").body == b"hello"
    assert picture(collector.wait_for_tree()) == lost("goaway", goaway(MOST, "no"))


@pytest.mark.parametrize("last", [0, MOST])
def test_goaway_with_the_settings_then_closed(stage: Stage, last: int) -> None:
    """The connection ends before the request could leave on it: it goes to the next one, whatever its method."""

    def leaves(connection: Http2BackendConnection) -> None:
        send_goaway_with_settings(connection, last)
        connection.sock.shutdown(socket.SHUT_WR)
        connection.wait_for_end()

    backend = stage.keep(Http2Backend(leaves, serve_http2(echo_http2)))
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector)
    assert ask(stage, balancer.port, "POST").body == b"hello"
    assert picture(collector.wait_for_tree()) == lost("goaway", goaway(last, "no"))
    assert "taken out" not in balancer.log()


def test_everything_on_the_connection_is_saved(stage: Stage) -> None:
    """One GOAWAY concerns many: those above it are moved, those below end where they are."""

    def leaves(connection: Http2BackendConnection) -> None:
        connection.start()
        connection.next_request(count=4)
        connection.goaway(3)
        for stream in (1, 3):
            connection.answer(stream, b"here")
        connection.wait_for_end()

    backend = stage.keep(Http2Backend(leaves, serve_http2(lambda c, s, f, b: c.answer(s, b"there"))))
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector)
    client = stage.keep(Http2Client(balancer.port))
    streams = [1, 3, 5, 7]
    for stream in streams:
        client.h2.send_headers(stream, client.request_fields(method="DELETE"), end_stream=True)
    client.flush()
    assert [client.answer(stream).body for stream in streams] == [b"here", b"here", b"there", b"there"]
    trees = collector.wait_for_trees(4)
    assert sorted(str(tree.span.attributes.get("lb.retry_count", 0)) for tree in trees) == ["0", "0", "1", "1"]
    assert len(backend.connections) == 2


@pytest.mark.parametrize(
    ("play", "reason"), [(says((0, 0, b"")), "goaway"), (resets(7), "refused_stream")], ids=["goaway", "refused"]
)
def test_attempts_are_bounded(stage: Stage, play: Play, reason: str) -> None:
    backend = stage.keep(Http2Backend(serve_http2(lambda c, s, f, b: play(c, s))))
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector)
    assert ask(stage, balancer.port, "POST").status == 502
    tree = collector.wait_for_tree()
    assert [span.attributes["h2.retry_count"] for span in tree.all("backend_request_h2")] == [0, 1, 2]
    denial = tree.span.event("retry_denied").attributes
    assert denial == {"retry.reason": reason, "retry.verdict": "attempts_exhausted"}
    assert "taken out" not in balancer.log()


def test_budget_is_a_fifth_of_the_requests(stage: Stage) -> None:
    """Each request may be tried thrice; with the reserve spent, most are not."""
    backend = stage.keep(Http2Backend(serve_http2(lambda c, s, f, b: c.reset(s, 7))))
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector)
    client = stage.keep(Http2Client(balancer.port))
    for _ in range(5):
        streams = [client.request() for _ in range(20)]
        assert {client.answer(stream).status for stream in streams} == {502}
    trees = collector.wait_for_trees(100)
    retries = sum(int(str(tree.span.attributes.get("lb.retry_count", 0))) for tree in trees)
    verdicts = [tree.span.event("retry_denied").attributes["retry.verdict"] for tree in trees]
    assert 100 <= retries <= 100 + 100 // 5
    assert set(verdicts) == {"attempts_exhausted", "budget_exhausted"}


def streams_body(stage: Stage, backend: Http2Backend, port: int, size: int) -> Answer:
    """A body that comes after its head, so that nothing of it is in the buffer at first."""
    client = stage.keep(Http2Client(port))
    stream = client.h2.get_next_available_stream_id()
    client.send_fields(stream, client.request_fields(method="POST"))
    backend.wait_for_connections(1)[0]
    client.send_data(stream, b"x" * size, ends=True)
    return client.answer(stream)


@pytest.mark.parametrize(
    ("size", "flags", "status"),
    [
        (60_000, (), 200),
        (100_000, (), 502),
        (100_000, ("--retry-buffer", "128k"), 200),
        (20_000, ("--retry-buffer", "10k"), 502),
    ],
)
def test_body_is_replayed_up_to_the_retry_buffer(stage: Stage, size: int, flags: tuple[str, ...], status: int) -> None:
    backend = stage.keep(Http2Backend(first(says((0, 0, b""))), serve_http2(echo_http2)))
    collector = stage.collector()
    balancer = stage.balancer(backend, *flags, collector=collector)
    answer = streams_body(stage, backend, balancer.port, size)
    assert answer.status == status
    tree = collector.wait_for_tree()
    if status == 200:
        assert answer.body == b"x" * size
    else:
        assert picture(tree)[1].strip() == denied("goaway", "body_not_replayable")
