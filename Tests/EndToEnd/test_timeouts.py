"""Every timeout, set short enough to be waited for."""

from __future__ import annotations

from harness import message, processes
from harness.backends import BackendConnection, hello, never_answer, serve
from harness.stage import Stage
from harness.wire import Connection, PeerClosed

SHORT = "0.3"


def backend_ended(connection: BackendConnection) -> None:
    assert connection.ended.wait(10), "the connection to the backend stays open"


def assert_truncated(client: Connection) -> None:
    """The rest of the response never comes, and the connection does not end as if it had."""
    try:
        client.receive_response()
    except (PeerClosed, ConnectionResetError):
        return
    raise AssertionError("the response looks complete")


def test_head_that_never_ends_is_408(stage: Stage) -> None:
    backend = stage.backend()
    client = stage.client(stage.balancer(backend, "--request-head-timeout", SHORT))
    client.send(b"GET / HTTP/1.1\r\nHost: ")
    response = client.receive_response()
    assert response.status == 408 and response.closes
    client.expect_end()
    assert backend.connections == []


def test_dripping_head_is_408_too(stage: Stage) -> None:
    """The time counts from the first byte; each further byte gives no more of it."""
    client = stage.client(stage.balancer(stage.backend(), "--request-head-timeout", SHORT))
    head = message.request("/", "X-Long: " + "x" * 10_000)
    for index in range(len(head)):
        client.send(head[index : index + 1])
        if not client.is_silent_for(0.05):
            break
    assert client.receive_response().status == 408


def test_second_head_on_a_connection_has_its_own_time(stage: Stage) -> None:
    client = stage.client(stage.balancer(stage.backend(), "--request-head-timeout", SHORT))
    client.send(message.request("/"))
    assert client.receive_response().status == 200
    client.is_silent_for(0.5)
    client.send(message.request("/") + b"GET / HT")
    assert client.receive_response().status == 200
    assert client.receive_response().status == 408


def test_idle_connection_is_closed_without_a_word(stage: Stage) -> None:
    client = stage.client(stage.balancer(stage.backend(), "--keep-alive-timeout", SHORT))
    client.send(message.request("/"))
    assert client.receive_response().status == 200
    client.expect_end()


def test_connection_that_never_sends_anything_is_closed(stage: Stage) -> None:
    flags = ["--keep-alive-timeout", SHORT, "--request-head-timeout", SHORT]
    stage.client(stage.balancer(stage.backend(), *flags)).expect_end()


def test_stalled_request_body_is_408(stage: Stage) -> None:
    backend = stage.backend()
    client = stage.client(stage.balancer(backend, "--client-body-timeout", SHORT))
    client.send(message.request("/", "Content-Length: 10", method="POST") + b"half")
    response = client.receive_response()
    assert response.status == 408 and response.closes
    assert backend.requests == []


def test_slow_but_moving_request_body_is_served(stage: Stage) -> None:
    client = stage.client(stage.balancer(stage.backend(), "--client-body-timeout", "0.5"))
    client.send(message.request("/", "Content-Length: 8", method="POST"))
    for _ in range(8):
        client.is_silent_for(0.15)
        client.send(b"x")
    assert client.receive_response().status == 200


def test_backend_that_does_not_accept_is_504(stage: Stage) -> None:
    balancer = stage.balancer(stage.black_hole(), "--connect-timeout", SHORT, "--max-attempts", "1")
    assert balancer.get("/").status == 504


def test_connect_timeout_goes_to_the_next_backend(stage: Stage) -> None:
    balancer = stage.balancer([stage.black_hole(), stage.backend()], "--connect-timeout", SHORT)
    assert [balancer.get("/").status for _ in range(2)] == [200, 200]


def test_backend_that_does_not_answer_is_504(stage: Stage) -> None:
    backend = stage.backend(never_answer)
    balancer = stage.balancer(backend, "--response-head-timeout", SHORT)
    assert balancer.get("/").status == 504
    backend_ended(backend.connections[0])


def test_dripping_response_head_is_504(stage: Stage) -> None:
    def drips(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while True:
            connection.send(b"x")
            if not connection.is_silent_for(0.05):
                return

    balancer = stage.balancer(stage.backend(drips), "--response-head-timeout", SHORT)
    assert balancer.get("/").status == 504


def test_response_head_time_counts_from_the_end_of_the_request(stage: Stage) -> None:
    """A slow upload does not eat the backend's time to think."""
    client = stage.client(stage.balancer(stage.backend(), "--response-head-timeout", "0.5"))
    client.send(message.request("/", "Content-Length: 6", method="POST"))
    for _ in range(6):
        client.is_silent_for(0.15)
        client.send(b"x")
    assert client.receive_response().status == 200


def test_backend_that_stalls_in_the_body_is_given_up(stage: Stage) -> None:
    def stalls(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(message.response_head("Content-Length: 10") + b"half")
        connection.wait_for_end()

    backend = stage.backend(stalls)
    client = stage.client(stage.balancer(backend, "--upstream-stall-timeout", SHORT))
    client.send(message.request("/"))
    assert_truncated(client)
    backend_ended(backend.connections[0])


def test_backend_that_does_not_read_the_body_is_504(stage: Stage) -> None:
    def reads_nothing(connection: BackendConnection) -> None:
        connection.receive_request_head()

    backend = stage.backend(reads_nothing)
    client = stage.client(stage.balancer(backend, "--upstream-stall-timeout", SHORT))
    client.sock.settimeout(0.5)
    client.send(message.request("/", "Content-Length: 100000000", method="POST"))
    _send_until_blocked(client)
    client.sock.settimeout(10)
    assert client.receive_response().status == 504


def _send_until_blocked(client: Connection) -> None:
    try:
        while True:
            client.send(b"x" * 1_000_000)
    except OSError:
        pass  # the buffers are full, or the balancer has answered and closed


def test_slow_but_moving_response_is_passed_on(stage: Stage) -> None:
    def slow(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(message.response_head("Content-Length: 8"))
        for _ in range(8):
            connection.is_silent_for(0.15)
            connection.send(b"x")

    balancer = stage.balancer(stage.backend(slow), "--upstream-stall-timeout", "0.5")
    assert balancer.get("/").body == b"xxxxxxxx"


def test_idle_backend_connection_is_closed(stage: Stage) -> None:
    backend = stage.backend()
    balancer = stage.balancer(backend, "--upstream-idle-timeout", SHORT)
    assert balancer.get("/").status == 200
    backend_ended(backend.connections[0])
    assert balancer.get("/").status == 200
    assert len(backend.connections) == 2


def test_client_that_does_not_read_is_given_up(stage: Stage) -> None:
    def endless(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(message.response_head("Content-Length: 1000000000"))
        for _ in range(1000):
            connection.send(b"x" * 1_000_000)

    backend = stage.backend(endless)
    client = stage.client(stage.balancer(backend, "--client-stall-timeout", SHORT))
    client.send(message.request("/"))
    backend_ended(backend.wait_for_connections(1)[0])


def test_client_that_half_closed_is_gone_when_no_answer_begins(stage: Stage) -> None:
    backend = stage.backend(never_answer)
    client = stage.client(stage.balancer(backend, "--half-close-timeout", SHORT))
    client.send(message.request("/"))
    backend.wait_for_requests(1)
    client.half_close()
    backend_ended(backend.connections[0])


def test_request_waits_for_a_free_backend_connection_only_so_long(stage: Stage) -> None:
    backend = stage.backend(never_answer)
    flags = ["--upstream-max-connections", "1", "--upstream-queue", "5", "--upstream-queue-timeout", SHORT]
    balancer = stage.balancer(backend, *flags)
    first, second = stage.client(balancer), stage.client(balancer)
    first.send(message.request("/first"))
    backend.wait_for_requests(1)
    second.send(message.request("/second"))
    response = second.receive_response()
    assert response.status == 503 and response.get("Retry-After") is not None


def test_waiting_does_not_cost_processor_time(stage: Stage) -> None:
    """Timers of waiting connections make the worker sleep, not poll."""
    balancer = stage.balancer(stage.backend(never_answer, serve(hello)))
    clients = [stage.client(balancer) for _ in range(20)]
    for client in clients:
        client.send(b"GET / HTTP/1.1\r\n")
    worker = balancer.worker_pid()
    before = processes.cpu_time_s(worker)
    clients[0].is_silent_for(1.0)
    assert processes.cpu_time_s(worker) - before < 0.1
