"""Responses whose end is the end of the connection (RFC 9112 §6.3, last rule)."""

from __future__ import annotations

import threading

import pytest

from harness import message
from harness.backends import BackendConnection, Script, serve_once
from harness.stage import Stage
from harness.wire import PeerClosed

BODY = b"until the end " * 1000


def until_close(body: bytes, version: str = "1.1") -> Script:
    return serve_once(message.response_head(version=version) + body)


@pytest.mark.parametrize("backend_version", ["1.0", "1.1"])
@pytest.mark.parametrize("client_version", ["1.0", "1.1"])
def test_whole_body_arrives(stage: Stage, backend_version: str, client_version: str) -> None:
    client = stage.client(stage.balancer(stage.backend(until_close(BODY, version=backend_version))))
    client.send(message.request("/", version=client_version))
    assert client.receive_response().body == BODY


def test_empty_body_arrives(stage: Stage) -> None:
    client = stage.client(stage.balancer(stage.backend(until_close(b""))))
    client.send(message.request("/"))
    assert client.receive_response().body == b""


def test_each_request_gets_a_backend_connection_of_its_own(stage: Stage) -> None:
    backend = stage.backend(until_close(BODY))
    balancer = stage.balancer(backend)
    for _ in range(3):
        assert balancer.get("/").body == BODY
    assert len(backend.connections) == 3


def test_reset_is_not_passed_on_as_a_clean_end(stage: Stage) -> None:
    """FIN ends such a body, RST breaks it; the client must be able to tell."""
    client_has_some = threading.Event()

    def breaks(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(message.response_head() + BODY)
        assert client_has_some.wait(10)
        connection.reset()

    client = stage.client(stage.balancer(stage.backend(breaks)))
    client.send(message.request("/"))
    head = client.receive_response_head()
    client_has_some.set()
    with pytest.raises((ConnectionResetError, PeerClosed)):
        if head.is_chunked:
            while client.receive_chunk():
                pass
        else:
            client.receive_to_end()
            raise AssertionError("the body ended cleanly")
