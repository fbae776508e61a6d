"""Limits on what one client or backend may ask for, and behaviour when a table is full."""

from __future__ import annotations

import pytest

from harness import message, processes
from harness.backends import BackendConnection, echo, serve
from harness.balancer import Balancer
from harness.stage import Stage
from harness.waiting import wait_until
from harness.wire import Connection


def status_of(balancer: Balancer, request: bytes) -> int:
    return balancer.exchange(request).status


def head_of_size(size: int) -> bytes:
    """A request whose head has exactly `size` bytes."""
    without = len(message.request("/", "X-Filler: "))
    return message.request("/", "X-Filler: " + "x" * (size - without))


def assert_refused(stage: Stage, balancer: Balancer, request: bytes, status: int) -> None:
    client = stage.client(balancer)
    client.send(request)
    response = client.receive_response()
    assert response.status == status
    assert response.closes
    client.expect_end()


def test_head_up_to_the_limit_is_served_and_beyond_it_refused(stage: Stage) -> None:
    backend = stage.backend()
    balancer = stage.balancer(backend, "--max-request-head", "1k")
    assert status_of(balancer, head_of_size(1024)) == 200
    assert_refused(stage, balancer, head_of_size(1025), 431)
    assert len(backend.requests) == 1


def test_default_head_limit_is_32_kib(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend())
    assert status_of(balancer, head_of_size(32 * 1024)) == 200
    assert_refused(stage, balancer, head_of_size(32 * 1024 + 1), 431)


def test_head_without_end_is_refused(stage: Stage) -> None:
    """The limit holds although the end of the head never comes."""
    balancer = stage.balancer(stage.backend(), "--max-request-head", "1k")
    assert_refused(stage, balancer, head_of_size(4096)[:2000], 431)


def test_fields_up_to_the_limit_are_served_and_beyond_it_refused(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), "--max-request-fields", "10")
    assert status_of(balancer, message.request("/", *[f"X-{n}: y" for n in range(9)])) == 200
    assert_refused(stage, balancer, message.request("/", *[f"X-{n}: y" for n in range(10)]), 431)


def test_default_field_limit_is_128(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend())
    assert status_of(balancer, message.request("/", *[f"X-{n}: y" for n in range(127)])) == 200
    assert_refused(stage, balancer, message.request("/", *[f"X-{n}: y" for n in range(128)]), 431)


def test_target_up_to_the_limit_is_served_and_beyond_it_refused(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), "--max-request-target", "100")
    assert status_of(balancer, message.request("/" + "a" * 99)) == 200
    assert_refused(stage, balancer, message.request("/" + "a" * 100), 414)


def test_default_target_limit_is_8_kib(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend())
    assert status_of(balancer, message.request("/" + "a" * 8191)) == 200
    assert_refused(stage, balancer, message.request("/" + "a" * 8192), 414)


def test_body_up_to_the_limit_is_served_and_beyond_it_refused(stage: Stage) -> None:
    backend = stage.backend(serve(echo))
    balancer = stage.balancer(backend, "--max-body", "1k")
    assert status_of(balancer, message.request("/", method="POST", body=b"x" * 1024)) == 200
    assert_refused(stage, balancer, message.request("/", "Content-Length: 1025", method="POST"), 413)
    assert len(backend.requests) == 1


def test_chunked_body_beyond_the_limit_is_refused(stage: Stage) -> None:
    backend = stage.backend(serve(echo))
    balancer = stage.balancer(backend, "--max-body", "1k")
    assert status_of(balancer, message.chunked_request("/", [b"x" * 512, b"y" * 512])) == 200
    client = stage.client(balancer)
    client.send(message.chunked_request("/", [b"x" * 512, b"y" * 513]))
    assert client.receive_response().status == 413
    assert len(backend.requests) == 1


def test_one_oversized_chunk_is_refused_before_it_ends(stage: Stage) -> None:
    """The limit holds for what has arrived, however much the chunk announces."""
    backend = stage.backend(serve(echo))
    client = stage.client(stage.balancer(backend, "--max-body", "1k"))
    client.send(message.request("/", "Transfer-Encoding: chunked", method="POST") + b"fffffff\r\n" + b"x" * 1025)
    assert client.receive_response().status == 413
    assert backend.requests == []


@pytest.mark.parametrize("size, status", [(2048, 200), (2049, 502)])
def test_response_head_beyond_the_limit_is_a_bad_gateway(stage: Stage, size: int, status: int) -> None:
    filler = size - len(message.response(b"", "X-Filler: "))
    answer = message.response(b"", "X-Filler: " + "x" * filler)
    assert len(answer) == size
    balancer = stage.balancer(stage.backend(serve(lambda r: answer)), "--max-response-head", "2k")
    assert balancer.get("/").status == status


def test_large_response_head_within_the_default_is_passed_on(stage: Stage) -> None:
    value = "x" * 60_000
    balancer = stage.balancer(stage.backend(serve(lambda r: message.response(b"", f"X-Filler: {value}"))))
    assert balancer.get("/").get("X-Filler") == value


def test_connection_ends_after_its_last_request(stage: Stage) -> None:
    client = stage.client(stage.balancer(stage.backend(), "--max-requests-per-connection", "3"))
    client.send(b"".join(message.request(f"/{number}") for number in range(4)))
    responses = [client.receive_response() for _ in range(3)]
    assert [response.closes for response in responses] == [False, False, True]
    client.expect_end()


def test_clients_beyond_the_table_wait_and_are_then_served(stage: Stage) -> None:
    backend = stage.backend()
    balancer = stage.balancer(backend, "--max-connections", "2")
    first, second = served(stage, balancer), served(stage, balancer)
    third = stage.client(balancer)
    third.send(message.request("/third"))
    assert third.is_silent_for(0.3)
    second.send(message.request("/still-served"))
    assert second.receive_response().text == "/still-served"
    first.close()
    assert third.receive_response().text == "/third"


def served(stage: Stage, balancer: Balancer) -> Connection:
    """A connection that has certainly been accepted, since it was answered."""
    client = stage.client(balancer)
    client.send(message.request("/"))
    assert client.receive_response().status == 200
    return client


def test_running_out_of_descriptors_neither_spins_nor_fails_for_ever(stage: Stage) -> None:
    limit = 40
    balancer = stage.balancer(stage.backend(), wrapper=["prlimit", f"--nofile={limit}:{limit}"])
    clients = [stage.client(balancer) for _ in range(2 * limit)]
    for client in clients:
        client.send(message.request("/"))
    clients[-1].is_silent_for(0.3)
    worker = balancer.worker_pid()
    before = processes.cpu_time_s(worker)
    clients[-1].is_silent_for(1.0)
    assert processes.cpu_time_s(worker) - before < 0.3, "the worker spins"
    for client in clients:
        client.close()
    assert wait_until(lambda: answers(balancer), "the balancer to serve again")


def answers(balancer: Balancer) -> bool:
    try:
        return balancer.get("/").status == 200
    except OSError:
        return False


def test_expectation_beyond_the_body_limit_is_refused_before_the_body(stage: Stage) -> None:
    backend = stage.backend()
    client = stage.client(stage.balancer(backend, "--max-body", "10"))
    client.send(message.request("/", "Expect: 100-continue", "Content-Length: 11", method="POST"))
    response = client.receive_response()
    assert (response.status, response.interim) == (413, [])
    assert backend.connections == []


def test_refused_client_that_still_sends_can_read_why(stage: Stage) -> None:
    """Closing with unread bytes in the socket would reset the connection and eat the answer (RFC 9112 §9.6)."""
    client = stage.client(stage.balancer(stage.backend(), "--max-body", "10"))
    client.send(message.request("/", "Content-Length: 200000", method="POST") + b"x" * 200_000)
    assert client.receive_response().status == 413


def test_slow_reader_of_one_response_does_not_hinder_others(stage: Stage) -> None:
    def endless(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(message.response_head("Content-Length: 100000000"))
        for _ in range(1000):
            connection.send(b"x" * 100_000)

    balancer = stage.balancer(stage.backend(endless, serve(echo)))
    stalled = stage.client(balancer)
    stalled.send(message.request("/"))
    assert stalled.receive_response_head().status == 200
    for _ in range(20):
        assert balancer.get("/").status == 200
