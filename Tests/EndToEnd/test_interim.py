"""Interim responses and Expect (RFC 9110 §10.1.1, §15.2)."""

from __future__ import annotations

import pytest

from harness import message
from harness.backends import BackendConnection, Script
from harness.stage import Stage
from harness.wire import Connection

EXPECTING = message.request("/up", "Expect: 100-continue", "Content-Length: 5", method="POST")
CONTINUE = message.response_head(status="100 Continue")


def sends(*parts: bytes) -> Script:
    """Answers the first request head with exactly these bytes, and reads on."""

    def script(connection: BackendConnection) -> None:
        connection.receive_request()
        for part in parts:
            connection.send(part)
        connection.wait_for_end()

    return script


def continues_then_answers(connection: BackendConnection) -> None:
    request = connection.receive_request_head()
    assert request.get("Expect") == "100-continue"
    connection.send(CONTINUE)
    body = connection.receive_exactly(5)
    connection.send(message.response(b"got " + body))


def test_100_continue_comes_from_the_backend(stage: Stage) -> None:
    client = stage.client(stage.balancer(stage.backend(continues_then_answers)))
    client.send(EXPECTING)
    assert client.receive_response_head().status == 100
    client.send(b"hello")
    assert client.receive_response().body == b"got hello"


def test_body_sent_without_waiting_is_forwarded(stage: Stage) -> None:
    client = stage.client(stage.balancer(stage.backend(continues_then_answers)))
    client.send(EXPECTING + b"hello")
    response = client.receive_response()
    assert response.body == b"got hello"


@pytest.mark.parametrize("status", ["417 Expectation Failed", "413 Content Too Large", "401 Unauthorized"])
def test_refusal_of_the_expectation_is_final(stage: Stage, status: str) -> None:
    def refuses(connection: BackendConnection) -> None:
        connection.receive_request_head()
        connection.send(message.response(b"no", status=status))
        connection.wait_for_end()

    client = stage.client(stage.balancer(stage.backend(refuses)))
    client.send(EXPECTING)
    response = client.receive_response()
    assert (f"{response.status} {response.reason}", response.body) == (status, b"no")
    assert response.interim == []


def test_bytes_after_a_refused_expectation_are_never_a_request(stage: Stage) -> None:
    """The client may still send the body it announced; it must not be read as a request."""
    body = message.request("/smuggled")

    def refuses(connection: BackendConnection) -> None:
        connection.receive_request_head()
        connection.send(message.response(b"no", status="413 Content Too Large"))
        connection.wait_for_end()

    backend = stage.backend(refuses)
    client = stage.client(stage.balancer(backend))
    client.send(message.request("/up", "Expect: 100-continue", f"Content-Length: {len(body)}", method="POST"))
    assert client.receive_response().status == 413
    _send_to_whoever_is_left(client, body)
    assert all(b"\r\n\r\nGET /smuggled" not in c.received or c.index == 0 for c in backend.connections)
    assert len(backend.connections) == 1


def _send_to_whoever_is_left(client: Connection, data: bytes) -> None:
    """Sends, and waits for the end or one more answer; both are fine."""
    try:
        client.send(data)
        client.half_close()
        client.receive_to_end()
    except ConnectionError:
        pass  # the balancer closed at once, which is the safest answer


def test_early_hints_are_forwarded(stage: Stage) -> None:
    hints = message.response_head("Link: </a.css>; rel=preload", status="103 Early Hints")
    more = message.response_head("Link: </b.css>; rel=preload", status="103 Early Hints")
    client = stage.client(stage.balancer(stage.backend(sends(hints, more, message.response(b"page")))))
    client.send(message.request("/"))
    response = client.receive_response()
    assert [(i.status, i.get("Link")) for i in response.interim] == [
        (103, "</a.css>; rel=preload"),
        (103, "</b.css>; rel=preload"),
    ]
    assert (response.status, response.body) == (200, b"page")


def test_interim_response_arrives_before_the_final_one_exists(stage: Stage) -> None:
    hints = message.response_head("Link: </a.css>", status="103 Early Hints")
    backend = stage.backend(sends(hints))
    client = stage.client(stage.balancer(backend))
    client.send(message.request("/"))
    assert client.receive_response_head().status == 103
    backend.connections[0].send(message.response(b"page"))
    assert client.receive_response().body == b"page"


@pytest.mark.parametrize("status", ["102 Processing", "104 Upload Resumption Supported", "199 Unknown"])
def test_no_interim_response_is_mistaken_for_the_final_one(stage: Stage, status: str) -> None:
    interim = message.response_head("X-A: b", status=status)
    client = stage.client(stage.balancer(stage.backend(sends(interim, message.response(b"final")))))
    client.send(message.request("/"))
    response = client.receive_response()
    assert (response.status, response.body) == (200, b"final")
    assert [i.status for i in response.interim] == [int(status[:3])]


def test_http10_client_gets_no_interim_response(stage: Stage) -> None:
    """RFC 9110 §15.2: a server must not send 1xx to an HTTP/1.0 client."""
    hints = message.response_head("Link: </a.css>", status="103 Early Hints")
    client = stage.client(stage.balancer(stage.backend(sends(hints, message.response(b"page")))))
    client.send(message.request("/", version="1.0"))
    response = client.receive_response()
    assert (response.interim, response.body) == ([], b"page")


def test_interim_and_final_in_one_segment_are_told_apart(stage: Stage) -> None:
    both = CONTINUE + message.response_head(status="103 Early Hints") + message.response(b"page")
    client = stage.client(stage.balancer(stage.backend(sends(both))))
    client.send(message.request("/", method="POST", body=b"x"))
    response = client.receive_response()
    assert [i.status for i in response.interim] == [100, 103]
    assert response.body == b"page"


def test_101_that_nobody_asked_for_is_a_bad_gateway(stage: Stage) -> None:
    switching = message.response_head("Upgrade: x", "Connection: upgrade", status="101 Switching Protocols")
    client = stage.client(stage.balancer(stage.backend(sends(switching))))
    client.send(message.request("/"))
    assert client.receive_response().status == 502


def test_endless_interim_responses_do_not_keep_a_request_alive_for_ever(stage: Stage) -> None:
    """They must not restart the wait for the final head for ever; some bound ends the request."""

    def babbles(connection: BackendConnection) -> None:
        connection.receive_request()
        while True:
            connection.send(message.response_head(status="102 Processing"))
            if not connection.is_silent_for(0.05):
                return

    balancer = stage.balancer(stage.backend(babbles), "--response-head-timeout", "0.5")
    client = stage.client(balancer)
    client.send(message.request("/"))
    assert client.receive_response().status in (502, 504)
