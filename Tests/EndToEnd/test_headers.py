"""What a proxy may change in a head, and what it must not touch (RFC 9110 §7.6)."""

from __future__ import annotations

import pytest

from harness import message
from harness.backends import ScriptedBackend, echo, serve
from harness.balancer import Balancer
from harness.stage import Stage
from harness.wire import Fields, Request, Response, connect

OURS = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}


class Front:
    """A balancer whose backend answers as the test wishes."""

    def __init__(self, stage: Stage) -> None:
        self.answer = message.response()
        self.backend: ScriptedBackend = stage.backend(serve(lambda request: self.answer))
        self.balancer: Balancer = stage.balancer(self.backend)

    def forward(self, *fields: str, target: str = "/", host: str = "example.test") -> Request:
        """The request as the backend got it."""
        response = self.balancer.exchange(message.request(target, *fields, host=host))
        assert response.status == 200, response
        return self.backend.requests[-1]

    def back(self, *fields: str) -> Response:
        """The response as the client got it."""
        self.answer = message.response(b"", *fields)
        return self.balancer.get("/")


@pytest.fixture(scope="module")
def front(shared_stage: Stage) -> Front:
    return Front(shared_stage)


def values(fields: Fields, name: str) -> list[str]:
    """The list elements of all field lines called `name`."""
    joined = ",".join(value for key, value in fields if key.lower() == name.lower())
    return [item.strip() for item in joined.split(",") if item.strip()]


HOP_BY_HOP = ["Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "TE: gzip", "Upgrade: raw"]


@pytest.mark.parametrize("line", HOP_BY_HOP)
def test_hop_by_hop_field_is_not_forwarded(front: Front, line: str) -> None:
    request = front.forward(line, "X-Kept: yes")
    assert request.all(line.split(":")[0]) == []
    assert request.get("X-Kept") == "yes"


@pytest.mark.parametrize("line", ["TE: trailers", "TE: gzip;q=0.5, trailers"])
def test_wish_for_trailers_is_made_anew_for_the_next_hop(front: Front, line: str) -> None:
    """Trailers go through, so the wish may too, alone and named by Connection (RFC 9110 §10.1.4)."""
    request = front.forward(line)
    assert values(request.fields, "TE") == ["trailers"]
    assert values(request.fields, "Connection") == ["TE"]


@pytest.mark.parametrize("line", ["Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "Connection: keep-alive"])
def test_hop_by_hop_field_does_not_come_back(front: Front, line: str) -> None:
    response = front.back(line, "X-Kept: yes")
    assert response.all(line.split(":")[0]) == []
    assert response.get("X-Kept") == "yes"


@pytest.mark.parametrize(
    "connection",
    [
        ["Connection: X-Hop, X-Other"],
        ["Connection: X-Hop", "Connection: X-Other"],
        ["Connection: ,x-hop ,, X-OTHER,keep-alive"],
    ],
)
def test_fields_that_connection_names_are_removed(front: Front, connection: list[str]) -> None:
    fields = [*connection, "X-Hop: 1", "X-Kept: yes", "x-other: 2", "X-HOP: 3"]
    for message_ in (front.forward(*fields), front.back(*fields)):
        assert message_.all("X-Hop") == [] and message_.all("X-Other") == []
        assert message_.get("X-Kept") == "yes"


def test_connection_cannot_remove_what_framing_and_routing_need(front: Front) -> None:
    """A client must not use Connection to strip Host, or the length of its own body."""
    request = message.request(
        "/", "Connection: Host, Content-Length, X-Forwarded-For", method="POST", body=b"GET /inner HTTP/1.1\r\n\r\n"
    )
    before = len(front.backend.requests)
    response = front.balancer.exchange(request)
    seen = front.backend.requests[before:]
    if response.status == 400:
        assert seen == []
        return
    assert [(r.get("Host"), r.body) for r in seen] == [("example.test", b"GET /inner HTTP/1.1\r\n\r\n")]
    assert values(seen[0].fields, "X-Forwarded-For") == ["127.0.0.1"]


@pytest.mark.parametrize("host", ["example.test", "example.test:8080", "EXAMPLE.test", "[::1]:80", "127.0.0.1"])
def test_host_is_preserved(front: Front, host: str) -> None:
    assert front.forward(host=host).get("Host") == host


def test_forwarded_fields_are_set(front: Front) -> None:
    request = front.forward(host="example.test:8080")
    assert request.get("X-Forwarded-For") == "127.0.0.1"
    assert request.get("X-Forwarded-Proto") == "http"
    assert request.get("X-Forwarded-Host") == "example.test:8080"


def test_forwarded_for_is_appended(front: Front) -> None:
    request = front.forward("X-Forwarded-For: 192.0.2.1, 192.0.2.2", "X-Forwarded-For: 192.0.2.3")
    assert values(request.fields, "X-Forwarded-For") == ["192.0.2.1", "192.0.2.2", "192.0.2.3", "127.0.0.1"]


def test_forwarded_proto_tells_the_truth(front: Front) -> None:
    """This hop is plain HTTP, whatever the client claims."""
    assert values(front.forward("X-Forwarded-Proto: https").fields, "X-Forwarded-Proto")[-1] == "http"


def test_repeated_request_fields_keep_number_and_order(front: Front) -> None:
    request = front.forward("X-A: 1", "X-B: 2", "X-A: 3", "Cookie: a=1", "X-A:", "Cookie: b=2")
    kept = [(name, value) for name, value in request.fields if name in ("X-A", "X-B", "Cookie")]
    assert kept == [("X-A", "1"), ("X-B", "2"), ("X-A", "3"), ("Cookie", "a=1"), ("X-A", ""), ("Cookie", "b=2")]


def test_repeated_response_fields_keep_number_and_order(front: Front) -> None:
    response = front.back("Set-Cookie: a=1; Path=/", "X-A: 1", "Set-Cookie: b=2, c", "Set-Cookie: a=1; Path=/")
    assert response.all("Set-Cookie") == ["a=1; Path=/", "b=2, c", "a=1; Path=/"]


ODD_FIELDS = [
    ("x-CuStOm", "MiXeD cAsE"),
    ("X-Empty", ""),
    ("X-Inner", "a  b\tc   d"),
    ("X-Obs-Text", "caf\xe9 \xff\x80"),
    ("X-Quoted", '"a, b"; c="\\"d"'),
    ("!#$%&'*+-.^_`|~9", "every token character"),
    ("Accept-Encoding", "gzip;q=0.5, br"),
    ("User-Agent", "a/1 (b; c)"),
    ("Via", "1.0 earlier"),
    ("Content-Type", "text/plain"),
]
ODD_LINES = [f"{name}: {value}" for name, value in ODD_FIELDS]


def test_nothing_else_changes_in_a_request(front: Front) -> None:
    request = front.forward(*ODD_LINES)
    kept = [(name, value) for name, value in request.fields if name.lower() not in OURS | {"host", "connection"}]
    assert kept == ODD_FIELDS


def test_nothing_else_changes_in_a_response(front: Front) -> None:
    lines = [*ODD_LINES, "Server: theirs", "Date: Thu, 01 Jan 1970 00:00:00 GMT", "Content-Encoding: identity"]
    response = front.back(*lines)
    kept = [(name, value) for name, value in response.fields if name.lower() not in ("connection", "content-length")]
    assert kept == [tuple(line.split(": ", 1)) for line in lines]


def test_nothing_is_added_to_a_response(front: Front) -> None:
    assert [name for name, _ in front.back().fields] == ["Content-Length"]


def test_space_around_a_value_is_not_part_of_it(front: Front) -> None:
    assert front.forward("X-A:   padded \t ").get("X-A") == "padded"
    assert front.forward("X-A:tight").get("X-A") == "tight"


@pytest.mark.parametrize(
    "target",
    [
        "/a/../b/./c//d",
        "/%41%zz%",
        "/?",
        "/a?b?c=/?&&=",
        "/a;b=c,d:e@f!$'()*+~_-.",
        '/"<>\\^`{|}',
        "/caf\xe9",
        "//double",
    ],
)
def test_target_is_forwarded_byte_for_byte(front: Front, target: str) -> None:
    assert front.forward(target=target).target == target


def test_trace_fields_pass_untouched_without_tracing(front: Front) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    request = front.forward(f"traceparent: {parent}", "tracestate: a=1", "tracestate: b=2")
    assert request.all("traceparent") == [parent]
    assert request.all("tracestate") == ["a=1", "b=2"]


def test_trace_fields_are_not_made_up_without_tracing(front: Front) -> None:
    request = front.forward()
    assert request.all("traceparent") == [] and request.all("tracestate") == []


def test_body_bytes_are_untouched(stage: Stage) -> None:
    body = bytes(range(256)) * 300
    response = stage.balancer(stage.backend(serve(echo))).exchange(message.request("/", method="POST", body=body))
    assert response.body == body


def test_forwarded_for_shows_an_ipv6_client(stage: Stage) -> None:
    backend = stage.backend()
    balancer = stage.balancer(backend, address="::1")
    client = stage.keep(connect(balancer.port, host="::1"))
    client.send(message.request("/"))
    assert client.receive_response().status == 200
    assert backend.requests[0].get("X-Forwarded-For") == "::1"
