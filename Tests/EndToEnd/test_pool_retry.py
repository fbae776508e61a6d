"""The pool of backend connections, the queue in front of it, and which requests are tried again."""

from __future__ import annotations

import socket
import threading

import pytest

from harness import message
from harness.backends import (
    BackendConnection,
    Script,
    ScriptedBackend,
    UnixBackend,
    answer_then,
    close_at_once,
    echo,
    hello,
    refused_port,
    reset_at_once,
    serve,
)
from harness.balancer import Balancer
from harness.stage import Stage
from harness.waiting import wait_until
from harness.wire import Connection, PeerClosed

OK = message.response(b"ok")


class Doors:
    """A backend whose requests wait until the test lets each go, by its target."""

    def __init__(self) -> None:
        self._events: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def _event(self, target: str) -> threading.Event:
        with self._lock:
            return self._events.setdefault(target, threading.Event())

    def open(self, target: str) -> None:
        self._event(target).set()

    def script(self, connection: BackendConnection) -> None:
        while True:
            target = connection.receive_request().target
            assert self._event(target).wait(20), f"nobody let {target} go"
            connection.send(message.response(f"{target} on {connection.index}".encode()))


def ask(stage: Stage, balancer: Balancer, target: str) -> Connection:
    """A client that has sent a request and waits."""
    client = stage.client(balancer)
    client.send(message.request(target))
    return client


# The pool


def test_most_recently_used_connection_goes_first(stage: Stage) -> None:
    doors = Doors()
    backend = stage.backend(doors.script)
    balancer = stage.balancer(backend)
    clients = {}
    for number, target in enumerate(["/a", "/b", "/c"]):
        clients[target] = ask(stage, balancer, target)
        backend.wait_for_requests(number + 1)
    for target in ("/b", "/c", "/a"):
        doors.open(target)
        assert clients[target].receive_response().status == 200
    doors.open("/next")
    assert balancer.get("/next").text == "/next on 0"


def test_idle_connections_are_bounded(stage: Stage) -> None:
    doors = Doors()
    backend = stage.backend(doors.script)
    balancer = stage.balancer(backend, "--upstream-max-idle", "1")
    clients = [ask(stage, balancer, f"/{number}") for number in range(3)]
    backend.wait_for_requests(3)
    for number, client in enumerate(clients):
        doors.open(f"/{number}")
        assert client.receive_response().status == 200
    wait_until(lambda: len(balancer.sockets_towards(backend.port)) == 1, "two connections to be closed")


def test_idle_connection_that_the_backend_closed_is_noticed(stage: Stage) -> None:
    """Even a POST, which must not be sent twice, succeeds after it."""
    backend = stage.backend(answer_then(OK, lambda connection: connection.close()), serve(hello))
    balancer = stage.balancer(backend)
    assert balancer.get("/").body == b"ok"
    wait_until(lambda: balancer.sockets_towards(backend.port) == [], "the dead connection to be dropped")
    assert balancer.exchange(message.request("/post", method="POST", body=b"x")).text == "/post"


def test_idle_connection_that_the_backend_reset_is_noticed(stage: Stage) -> None:
    may_reset = threading.Event()

    def resets(connection: BackendConnection) -> None:
        assert may_reset.wait(10)
        connection.reset()

    backend = stage.backend(answer_then(OK, resets), serve(hello))
    balancer = stage.balancer(backend)
    assert balancer.get("/").body == b"ok"
    may_reset.set()
    wait_until(lambda: balancer.sockets_towards(backend.port) == [], "the dead connection to be dropped")
    assert balancer.exchange(message.request("/post", method="POST", body=b"x")).text == "/post"


def test_connections_to_a_backend_are_bounded_and_others_wait(stage: Stage) -> None:
    doors = Doors()
    backend = stage.backend(doors.script)
    flags = ["--upstream-max-connections", "2", "--upstream-queue", "10", "--upstream-queue-timeout", "20"]
    balancer = stage.balancer(backend, *flags)
    clients = [ask(stage, balancer, f"/{number}") for number in range(5)]
    backend.wait_for_requests(2)
    for number in range(5):
        doors.open(f"/{number}")
    for number, client in enumerate(clients):
        assert client.receive_response().text.startswith(f"/{number} on ")
    assert len(backend.connections) == 2


def test_request_beyond_a_full_queue_is_503_at_once(stage: Stage) -> None:
    doors = Doors()
    backend = stage.backend(doors.script)
    flags = ["--upstream-max-connections", "1", "--upstream-queue", "1", "--upstream-queue-timeout", "20"]
    balancer = stage.balancer(backend, *flags)
    first = ask(stage, balancer, "/first")
    backend.wait_for_requests(1)
    second = ask(stage, balancer, "/second")
    assert second.is_silent_for(0.2)
    third = ask(stage, balancer, "/third").receive_response()
    assert third.status == 503 and third.get("Retry-After") is not None
    for target, client in (("/first", first), ("/second", second)):
        doors.open(target)
        assert client.receive_response().text == f"{target} on 0"


def test_waiting_client_that_goes_away_leaves_the_queue(stage: Stage) -> None:
    doors = Doors()
    backend = stage.backend(doors.script)
    flags = ["--upstream-max-connections", "1", "--upstream-queue", "1", "--upstream-queue-timeout", "20"]
    balancer = stage.balancer(backend, *flags)
    first = ask(stage, balancer, "/first")
    backend.wait_for_requests(1)
    gone = ask(stage, balancer, "/gone")
    assert gone.is_silent_for(0.2)
    gone.reset()
    wait_until(lambda: _waits(stage, balancer, "/third"), "the queue to have room again")
    doors.open("/first")
    assert first.receive_response().status == 200
    doors.open("/third")
    backend.wait_for_requests(2)
    assert [request.target for request in backend.requests] == ["/first", "/third"]


def _waits(stage: Stage, balancer: Balancer, target: str) -> bool:
    """Whether a new request is taken into the queue instead of refused."""
    return ask(stage, balancer, target).is_silent_for(0.2)


# Trying again


def answers_once_then(failure: Script) -> Script:
    """The first request is answered; the next one on the same connection meets `failure`."""
    return answer_then(OK, failure)


@pytest.mark.parametrize("failure", [close_at_once, reset_at_once])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
def test_idempotent_request_is_retried_after_a_stale_connection(stage: Stage, failure: Script, method: str) -> None:
    backend = stage.backend(answers_once_then(failure), serve(hello))
    balancer = stage.balancer(backend)
    assert balancer.get("/first").status == 200
    assert balancer.exchange(message.request("/second", method=method)).status == 200
    assert [request.target for request in backend.requests] == ["/first", "/second", "/second"]
    assert len(backend.connections) == 2


def test_small_body_is_replayed(stage: Stage) -> None:
    backend = stage.backend(answers_once_then(close_at_once), serve(echo))
    balancer = stage.balancer(backend)
    assert balancer.get("/first").status == 200
    response = balancer.exchange(message.request("/second", method="PUT", body=b"whole body"))
    assert (response.status, response.body) == (200, b"whole body")


def test_body_that_is_no_longer_whole_is_not_replayed(stage: Stage) -> None:
    body = b"x" * 3_000_000

    def reads_some_and_closes(connection: BackendConnection) -> None:
        connection.receive_request_head()
        connection.receive_exactly(1_000_000)
        connection.reset()

    backend = stage.backend(answers_once_then(reads_some_and_closes), serve(echo))
    balancer = stage.balancer(backend)
    assert balancer.get("/first").status == 200
    client = stage.client(balancer)
    sender = threading.Thread(target=_send_ignoring_errors, args=(client, body), daemon=True)
    sender.start()
    assert client.receive_response().status == 502
    sender.join(10)
    assert len(backend.connections) == 1


def _send_ignoring_errors(client: Connection, body: bytes) -> None:
    try:
        client.send(message.request("/second", method="PUT", body=body))
    except OSError:
        pass  # the balancer answered and closed before it had all


@pytest.mark.parametrize("method", ["POST", "PATCH", "X-UNKNOWN"])
def test_request_that_may_not_run_twice_is_not_retried(stage: Stage, method: str) -> None:
    backend = stage.backend(answers_once_then(close_at_once), serve(hello))
    balancer = stage.balancer(backend)
    assert balancer.get("/first").status == 200
    assert balancer.exchange(message.request("/second", method=method, body=b"x")).status == 502
    assert [request.target for request in backend.requests] == ["/first", "/second"]


@pytest.mark.parametrize("failure", [close_at_once, reset_at_once])
def test_failure_of_a_fresh_connection_is_not_retried(stage: Stage, failure: Script) -> None:
    """The backend has had the request and failed; it is not a stale connection's fault."""
    backend = stage.backend(failure, serve(hello))
    assert stage.balancer(backend).get("/").status == 502
    assert len(backend.requests) == 1


def test_request_is_not_retried_once_the_response_began(stage: Stage) -> None:
    def begins_and_closes(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-")
        connection.close()

    backend = stage.backend(answers_once_then(begins_and_closes), serve(hello))
    balancer = stage.balancer(backend)
    assert balancer.get("/first").status == 200
    assert balancer.get("/second").status == 502
    assert len(backend.requests) == 2


def test_request_with_a_response_body_begun_is_cut_not_retried(stage: Stage) -> None:
    def breaks_off(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(message.response_head("Content-Length: 10") + b"half")
        connection.close()

    backend = stage.backend(answers_once_then(breaks_off), serve(hello))
    balancer = stage.balancer(backend)
    assert balancer.get("/first").status == 200
    with pytest.raises((PeerClosed, ConnectionResetError)):
        balancer.get("/second")
    assert len(backend.requests) == 2


def test_attempts_are_bounded(stage: Stage) -> None:
    """Four backends are down, two attempts are allowed: the fifth is not reached at first."""
    down = [f"127.0.0.1:{refused_port()}" for _ in range(4)]
    up = stage.backend()
    balancer = stage.balancer([*down, up], "--max-attempts", "2")
    statuses = [balancer.get("/").status for _ in range(5)]
    assert 502 in statuses and 200 in statuses


# Where requests go


def test_refused_connection_goes_to_the_next_backend(stage: Stage) -> None:
    backend = stage.backend(serve(echo))
    balancer = stage.balancer([f"127.0.0.1:{refused_port()}", backend])
    for number in range(6):
        body = b"body %d" % number
        assert balancer.exchange(message.request("/", method="POST", body=body)).body == body


def test_all_backends_refusing_is_a_bad_gateway(stage: Stage) -> None:
    balancer = stage.balancer([f"127.0.0.1:{refused_port()}"])
    response = balancer.get("/")
    assert response.status == 502
    assert (response.get("Content-Type") or "").startswith("text/plain")
    assert response.body


def test_backend_on_a_unix_socket_is_served(stage: Stage) -> None:
    backend = stage.keep(UnixBackend(stage.folder() / "socket", serve(echo)))
    balancer = stage.balancer(backend)
    assert balancer.exchange(message.request("/", method="POST", body=b"x")).body == b"x"


def test_backend_on_ipv6_is_served(stage: Stage) -> None:
    backend = stage.keep(ScriptedBackend(serve(hello), family=socket.AF_INET6))
    assert stage.balancer([f"[::1]:{backend.port}"]).get("/six").text == "/six"


def test_backend_by_name_is_served(stage: Stage) -> None:
    backend = stage.backend()
    assert stage.balancer([f"http://localhost:{backend.port}"]).get("/name").text == "/name"
