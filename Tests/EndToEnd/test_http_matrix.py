"""HTTP/1.1 and HTTP/2, in cleartext and over TLS, on either side: what must arrive in all sixteen ways."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from harness.certificates import Authority
from harness.either import KINDS, BrokenOff, Client, EitherBackend, Got, Play, Server, connect
from harness.stage import Stage
from harness.tls import Front

LARGE = os.urandom(1_500_000)
EARLY_HINTS, TOO_LARGE = 103, 413


class Way:
    """One of the sixteen: a fresh client, and the backend that its balancer is in front of."""

    def __init__(self, client_kind: str, backend_kind: str, client: Client, backend: EitherBackend) -> None:
        self.client_kind = client_kind
        self.backend_kind = backend_kind
        self.client = client
        self._backend = backend
        self.seen: Got = Got()

    def play(self, play: Play) -> None:
        """What the backend does with the next request."""
        self._backend.play = play

    def answer_with(self, *fields: tuple[str, str], **how: object) -> None:
        """The backend reads the request whole, keeps it in `seen`, and answers."""

        def play(server: Server) -> None:
            self.seen = server.head()
            self.seen.body, self.seen.trailers = server.body()
            server.answer(*fields, **how)  # type: ignore[arg-type]

        self.play(play)


@pytest.fixture(scope="module", params=KINDS)
def behind(
    request: pytest.FixtureRequest, shared_stage: Stage, authority: Authority
) -> Iterator[tuple[str, EitherBackend, Front]]:
    """A backend of each kind with a balancer in front, for all tests of this file."""
    certificate = authority.issue("DNS:a.test", "IP:127.0.0.1")
    backend = EitherBackend(request.param, shared_stage, certificate)
    trusting = ["--upstream-ca", str(authority.path), "--upstream-idle-timeout", "5"]
    front = Front(shared_stage, backend, authority, *certificate.server_flags, *trusting)
    yield request.param, backend, front
    front.balancer.begin_close()


@pytest.fixture(params=KINDS)
def way(request: pytest.FixtureRequest, behind: tuple[str, EitherBackend, Front]) -> Iterator[Way]:
    backend_kind, backend, front = behind
    client = connect(request.param, front)
    yield Way(request.param, backend_kind, client, backend)
    client.close()


def test_request_and_answer(way: Way) -> None:
    way.answer_with(("set-cookie", "a=1"), ("x-between", "y"), ("set-cookie", "b=2"), body=b"body")
    way.client.send("GET", ("x-twice", "1"), ("x-twice", "2"), ("user-agent", "test"))
    answer = way.client.answer()
    assert (way.seen.method, way.seen.target) == ("GET", "/path?query")
    assert way.seen.all("x-twice") == ["1", "2"]
    assert way.seen.all("user-agent") == ["test"]
    assert way.seen.all("x-forwarded-proto") == ["https" if "tls" in way.client_kind else "http"]
    assert way.seen.all(":authority" if "h2" in way.backend_kind else "host") == ["example.test"]
    assert (answer.status, answer.body) == (200, b"body")
    assert answer.all("content-length") == ["4"]
    assert answer.all("set-cookie") == ["a=1", "b=2"]


def test_large_bodies_both_ways(way: Way) -> None:
    way.answer_with(body=LARGE)
    way.client.send("POST", body=LARGE)
    assert way.client.answer().body == LARGE
    assert way.seen.body == LARGE
    assert way.seen.all("content-length") == [str(len(LARGE))]


def test_empty_body(way: Way) -> None:
    way.answer_with()
    way.client.send("POST", body=b"")
    answer = way.client.answer()
    assert (answer.status, answer.body, answer.all("content-length")) == (200, b"", ["0"])
    assert way.seen.all("content-length") == ["0"]


def test_head(way: Way) -> None:
    def play(server: Server) -> None:
        way.seen = server.head()
        server.begin(200, ("content-length", "1000"), ends=True)

    way.play(play)
    way.client.send("HEAD")
    answer = way.client.answer()
    assert way.seen.method == "HEAD"
    assert (answer.body, answer.all("content-length")) == (b"", ["1000"])


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_a_body(way: Way, status: int) -> None:
    def play(server: Server) -> None:
        server.head()
        server.begin(status, ("etag", '"x"'), ends=True)

    way.play(play)
    way.client.send("GET")
    answer = way.client.answer()
    assert (answer.status, answer.body, answer.all("etag")) == (status, b"", ['"x"'])
    assert not answer.all("content-length")
    assert not answer.all("transfer-encoding")


@pytest.mark.parametrize("body", [b"", b"body"])
def test_trailers_both_ways(way: Way, body: bytes) -> None:
    way.answer_with(body=body, trailers=[("x-back", "2"), ("grpc-status", "0")])
    way.client.send("POST", body=body, trailers=[("x-there", "1")])
    answer = way.client.answer()
    assert (way.seen.body, way.seen.trailers) == (body, [("x-there", "1")])
    assert (answer.body, answer.trailers) == (body, [("x-back", "2"), ("grpc-status", "0")])


def test_100_continue(way: Way) -> None:
    def play(server: Server) -> None:
        way.seen = server.head()
        server.begin(100)
        server.answer(body=server.body()[0])

    way.play(play)
    way.client.begin("POST", ("content-length", "4"), ("expect", "100-continue"))
    assert way.client.wait_for_interim() == 100
    way.client.send_part(b"body", ends=True)
    assert way.client.answer().body == b"body"
    assert way.seen.all("expect") == ["100-continue"]


def test_early_hints(way: Way) -> None:
    def play(server: Server) -> None:
        server.head()
        server.begin(EARLY_HINTS, ("link", "</style.css>"))
        server.begin(EARLY_HINTS, ("link", "</script.js>"))
        server.answer(body=b"page")

    way.play(play)
    way.client.send("GET")
    answer = way.client.answer()
    assert (answer.interim, answer.status, answer.body) == ([EARLY_HINTS] * 2, 200, b"page")


def test_answer_before_the_request_is_whole(way: Way) -> None:
    def play(server: Server) -> None:
        server.head()
        server.answer(status=TOO_LARGE, body=b"enough")

    way.play(play)
    way.client.begin("POST", ("content-length", "1000000"))
    way.client.send_part(b"x" * 10_000)
    answer = way.client.answer()
    assert (answer.status, answer.body) == (TOO_LARGE, b"enough")


def test_answer_that_ends_too_early_is_broken_off(way: Way) -> None:
    def play(server: Server) -> None:
        server.head()
        server.begin(200, ("content-length", "10"))
        server.cut(b"12345")

    way.play(play)
    way.client.send("GET")
    with pytest.raises(BrokenOff):
        way.client.answer()


def test_cookies_arrive_as_one(way: Way) -> None:
    way.answer_with()
    crumbs = [("cookie", "a=1"), ("cookie", "b=2")] if "h2" in way.client_kind else [("cookie", "a=1; b=2")]
    way.client.send("GET", *crumbs)
    way.client.answer()
    assert way.seen.all("cookie") == ["a=1; b=2"]


def test_fields_of_one_connection_stay_there(way: Way) -> None:
    way.answer_with(*([("keep-alive", "timeout=5"), ("proxy-connection", "x")] if "h1" in way.backend_kind else []))
    hop = [("connection", "x-hop, keep-alive"), ("x-hop", "1"), ("keep-alive", "timeout=5"), ("te", "trailers")]
    way.client.send("GET", *(hop if "h1" in way.client_kind else [("te", "trailers")]))
    answer = way.client.answer()
    assert not way.seen.all("x-hop") and not way.seen.all("keep-alive")
    assert not answer.all("keep-alive") and not answer.all("proxy-connection")
    assert way.seen.all("te") == ["trailers"]
    assert way.seen.all("connection") == (["TE"] if "h1" in way.backend_kind else [])
