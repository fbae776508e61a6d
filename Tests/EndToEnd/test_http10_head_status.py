"""Old clients, methods and status codes whose framing is special (RFC 9112 §3, §6.3; RFC 9110 §9, §15)."""

from __future__ import annotations

import pytest

from harness import message
from harness.backends import ScriptedBackend, serve, serve_once
from harness.stage import Stage
from harness.wire import Connection

ABC_CHUNKED = message.chunked_response([b"a", b"bc"])


def front(stage: Stage, answer: bytes) -> tuple[Connection, ScriptedBackend]:
    """A client of a balancer whose backend always gives `answer`."""
    backend = stage.backend(serve(lambda request: answer))
    return stage.client(stage.balancer(backend)), backend


def test_http10_connection_ends_after_the_answer(stage: Stage) -> None:
    client, _ = front(stage, message.response(b"abc"))
    client.send(message.request("/", version="1.0"))
    assert client.receive_response().body == b"abc"
    client.expect_end()


def test_http10_keep_alive_is_honoured(stage: Stage) -> None:
    client, _ = front(stage, message.response(b"abc"))
    for _ in range(2):
        client.send(message.request("/", "Connection: keep-alive", version="1.0"))
        response = client.receive_response()
        assert response.body == b"abc"
        assert (response.get("Connection") or "").lower() == "keep-alive"


@pytest.mark.parametrize("options", [[], ["Connection: keep-alive"]])
def test_http10_client_never_gets_chunks(stage: Stage, options: list[str]) -> None:
    client, _ = front(stage, ABC_CHUNKED)
    client.send(message.request("/", *options, version="1.0"))
    response = client.receive_response()
    assert response.get("Transfer-Encoding") is None
    assert response.body == b"abc"
    client.expect_end()


def test_http10_request_reaches_the_backend_as_http11(stage: Stage) -> None:
    """The version is the hop's own (RFC 9110 §2.5), and HTTP/1.1 demands a Host (RFC 9112 §3.2)."""
    client, backend = front(stage, message.response())
    client.send(message.request("/", version="1.0", host=None))
    assert client.receive_response().status == 200
    (request,) = backend.requests
    assert request.version == "1.1"
    assert request.get("Host") is not None


def test_http10_post_with_length_is_forwarded(stage: Stage) -> None:
    client, backend = front(stage, message.response())
    client.send(message.request("/", method="POST", version="1.0", body=b"abc"))
    assert client.receive_response().status == 200
    assert backend.requests[0].body == b"abc"


def test_http10_backend_is_understood(stage: Stage) -> None:
    backend = stage.backend(serve_once(message.response(b"old", version="1.0")))
    client = stage.client(stage.balancer(backend))
    for _ in range(2):
        client.send(message.request("/"))
        response = client.receive_response()
        assert (response.body, response.version) == (b"old", "1.1")


def test_head_keeps_the_length_and_has_no_body(stage: Stage) -> None:
    client, backend = front(stage, message.response_head("Content-Length: 1000"))
    for _ in range(2):
        client.send(message.request("/", method="HEAD"))
        response = client.receive_response("HEAD")
        assert (response.status, response.get("Content-Length")) == (200, "1000")
    assert len(backend.connections) == 1


def test_head_of_a_chunked_resource_has_no_body(stage: Stage) -> None:
    client, _ = front(stage, message.response_head("Transfer-Encoding: chunked"))
    for _ in range(2):
        client.send(message.request("/", method="HEAD"))
        assert client.receive_response("HEAD").status == 200


def test_head_without_any_length_keeps_the_connection(stage: Stage) -> None:
    client, backend = front(stage, message.response_head("X-A: b"))
    for _ in range(2):
        client.send(message.request("/", method="HEAD"))
        assert client.receive_response("HEAD").get("X-A") == "b"
    assert len(backend.connections) == 1


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_status_without_body_keeps_the_connection(stage: Stage, status: str) -> None:
    client, backend = front(stage, message.response_head('ETag: "x"', status=status))
    for _ in range(2):
        client.send(message.request("/"))
        response = client.receive_response()
        assert f"{response.status} {response.reason}" == status
        assert response.get("ETag") == '"x"'
        assert response.get("Transfer-Encoding") is None
    assert len(backend.connections) == 1


def test_304_with_a_length_has_no_body(stage: Stage) -> None:
    client, _ = front(stage, message.response_head("Content-Length: 1000", status="304 Not Modified"))
    for _ in range(2):
        client.send(message.request("/"))
        response = client.receive_response()
        assert (response.status, response.get("Content-Length")) == (304, "1000")


def test_204_is_sent_without_length(stage: Stage) -> None:
    """RFC 9110 §8.6: a 204 carries no Content-Length; a request after it is not misread either."""
    client, _ = front(stage, message.response_head(status="204 No Content"))
    client.send(message.request("/") + message.request("/"))
    for _ in range(2):
        assert client.receive_response().get("Content-Length") is None


def test_options_asterisk_is_forwarded(stage: Stage) -> None:
    client, backend = front(stage, message.response_head("Allow: GET", "Content-Length: 0"))
    client.send(message.request("*", method="OPTIONS"))
    assert client.receive_response().get("Allow") == "GET"
    assert (backend.requests[0].method, backend.requests[0].target) == ("OPTIONS", "*")


def test_asterisk_with_another_method_is_refused(stage: Stage) -> None:
    client, backend = front(stage, message.response())
    client.send(message.request("*", method="GET"))
    assert client.receive_response().status == 400
    assert backend.requests == []


@pytest.mark.parametrize(
    "target, expected",
    [
        ("http://site.test/path?q=1", "/path?q=1"),
        ("http://site.test:81/", "/"),
        ("HTTP://site.test", "/"),
        ("http://site.test?q=1", "/?q=1"),
    ],
)
def test_absolute_form_becomes_origin_form(stage: Stage, target: str, expected: str) -> None:
    """RFC 9112 §3.2.2: the target's authority wins over Host."""
    client, backend = front(stage, message.response())
    client.send(message.request(target, host="other.test"))
    assert client.receive_response().status == 200
    (request,) = backend.requests
    assert request.target == expected
    assert request.get("Host") == ("site.test:81" if ":81" in target else "site.test")


def test_connect_is_refused(stage: Stage) -> None:
    client, backend = front(stage, message.response())
    client.send(message.request("site.test:443", method="CONNECT"))
    response = client.receive_response()
    assert response.status == 405
    assert response.get("Allow") is not None, "RFC 9110 §15.5.6 demands Allow"
    assert backend.requests == []


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "PROPFIND", "get", "X-ANY!"])
def test_any_method_is_forwarded(stage: Stage, method: str) -> None:
    client, backend = front(stage, message.response(b"ok"))
    client.send(message.request("/", method=method))
    assert client.receive_response(method).body == b"ok"
    assert backend.requests[0].method == method


def test_get_with_a_body_is_forwarded(stage: Stage) -> None:
    client, backend = front(stage, message.response())
    client.send(message.request("/", body=b"query"))
    assert client.receive_response().status == 200
    assert backend.requests[0].body == b"query"


@pytest.mark.parametrize("status", ["200 ", "200 Fine", "299 Odd", "418 I'm a teapot", "599 Whatever it is"])
def test_status_and_reason_are_passed_on(stage: Stage, status: str) -> None:
    client, _ = front(stage, message.response(status=status))
    client.send(message.request("/"))
    response = client.receive_response()
    assert f"{response.status} {response.reason}" == status
