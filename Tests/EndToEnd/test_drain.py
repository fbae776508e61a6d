"""The end of a worker, as its clients see it: whatever crosses the end is answered, what is silent is closed."""

from __future__ import annotations

import ctypes
import errno
import select
import signal
import socket
import struct
from collections.abc import Callable

from harness import message
from harness.backends import BackendConnection, never_answer, serve
from harness.balancer import Balancer
from harness.stage import Stage
from harness.waiting import PATIENCE_S, wait_until
from harness.wire import Connection
from test_process_model import Answering

QUEUES_EMPTY = "nobody is on the way to the listeners"


def begin_drain(balancer: Balancer) -> None:
    balancer.signal(signal.SIGTERM)
    wait_until(lambda: "msg=draining" in balancer.log(), "the drain to begin")


def draining_balancer_with_idle_client(stage: Stage) -> tuple[Balancer, Connection]:
    balancer = stage.balancer(stage.backend(), "--log-level", "debug")
    client = stage.client(balancer)
    client.send(message.request("/before"))
    assert not client.receive_response().closes
    begin_drain(balancer)
    return balancer, client


def test_request_that_crosses_the_drain_is_answered(stage: Stage) -> None:
    balancer, client = draining_balancer_with_idle_client(stage)
    client.send(message.request("/crossing"))
    response = client.receive_response()
    assert response.text == "/crossing" and response.closes
    client.expect_end()
    client.close()
    assert balancer.wait_for_exit() == 0


def test_silent_connection_is_closed_in_order(stage: Stage) -> None:
    balancer, client = draining_balancer_with_idle_client(stage)
    client.expect_end()
    assert balancer.wait_for_exit() == 0


def test_listeners_that_nobody_is_on_the_way_to_are_not_waited_for(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), "--log-level", "debug", workers=2)
    balancer.signal(signal.SIGTERM)
    assert balancer.wait_for_exit() == 0
    assert balancer.log().count(QUEUES_EMPTY) == 2, "each worker has heard it"


def test_client_in_the_middle_of_its_handshake_is_served(stage: Stage) -> None:
    """Its SYN was answered before the end began; it hears that only when the kernel says it again, a second later."""
    balancer = stage.balancer(stage.backend(), "--log-level", "debug")
    with socket.socket() as late:
        late.setblocking(False)
        hear = _drop_everything(late)
        assert late.connect_ex(("127.0.0.1", balancer.port)) == errno.EINPROGRESS
        balancer.signal(signal.SIGTERM)
        hear()
        assert select.select([], [late], [], PATIENCE_S)[1] and QUEUES_EMPTY not in balancer.log()
        late.settimeout(PATIENCE_S)
        client = Connection(late)
        client.send(message.request("/late"))
        response = client.receive_response()
        assert response.text == "/late" and response.closes
    assert balancer.wait_for_exit() == 0


def _drop_everything(sock: socket.socket) -> Callable[[], None]:
    """Makes a socket deaf, by a filter of one instruction that takes nothing; returns what ends that."""
    attach, detach = 26, 27
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    sock.setsockopt(socket.SOL_SOCKET, attach, struct.pack("HL", 1, ctypes.addressof(instruction)))
    return lambda: sock.setsockopt(socket.SOL_SOCKET, detach, 0)


def test_slow_head_is_waited_for(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), "--log-level", "debug")
    client = stage.client(balancer)
    data = message.request("/slow")
    client.send(data[:20])
    begin_drain(balancer)
    assert client.is_silent_for(1.3), "longer than a connection without a head may stay"
    client.send(data[20:])
    response = client.receive_response()
    assert response.text == "/slow" and response.closes
    client.close()
    assert balancer.wait_for_exit() == 0


def test_new_connections_are_left_to_the_listener(stage: Stage) -> None:
    answering = Answering()
    backend = stage.backend(answering.script)
    balancer = stage.balancer(backend, "--log-level", "debug")
    client = stage.client(balancer)
    client.send(message.request("/in-flight"))
    backend.wait_for_requests(1)
    begin_drain(balancer)
    assert not _is_answered(balancer.port)
    assert len(backend.requests) == 1
    answering.go.set()
    assert client.receive_response().closes
    client.close()
    assert balancer.wait_for_exit() == 0


def _is_answered(port: int) -> bool:
    """Whether a new client gets anything; it may not even get a connection."""
    with socket.socket() as late:
        late.settimeout(0.3)
        try:
            late.connect(("127.0.0.1", port))
            late.sendall(message.request("/late"))
            return bool(late.recv(100))
        except OSError:
            return False


def test_slow_reader_gets_its_whole_response(stage: Stage) -> None:
    """More than the sockets hold: most of it goes out after the drain began."""
    body = bytes(range(256)) * 65_536
    backend = stage.backend(serve(lambda _: message.response(body)))
    balancer = stage.balancer(backend, "--log-level", "debug")
    client = stage.client(balancer)
    client.send(message.request("/large"))
    backend.wait_for_requests(1)
    begin_drain(balancer)
    assert client.receive_response().body == body
    client.close()
    assert balancer.wait_for_exit() == 0


def test_what_ran_when_the_drain_began_says_so(stage: Stage) -> None:
    answering = Answering()
    backend = stage.backend(answering.script)
    collector = stage.collector()
    balancer = stage.balancer(backend, "--log-level", "debug", collector=collector)
    client = stage.client(balancer)
    client.send(message.request("/in-flight"))
    backend.wait_for_requests(1)
    begin_drain(balancer)
    answering.go.set()
    assert client.receive_response().body == b"finished"
    client.close()
    assert balancer.wait_for_exit() == 0
    (tree,) = collector.wait_for_trees(1)
    tree.assert_sound()
    event = tree.span.event("drain_started")
    assert tree.one("backend_request").start_ns <= event.time_ns <= tree.one("backend_request").end_ns


def _switch_and_wait(connection: BackendConnection) -> None:
    connection.receive_request()
    connection.send(
        message.response_head("Connection: Upgrade", "Upgrade: raw", status="101 Switching Protocols")
    )
    connection.wait_for_end()


def test_what_is_left_after_the_timeout_is_counted_by_what_it_is(stage: Stage) -> None:
    backend = stage.backend(_switch_and_wait, never_answer)
    collector = stage.collector()
    balancer = stage.balancer(backend, "--drain-timeout", "0.7", collector=collector)
    tunnel = stage.client(balancer)
    tunnel.send(message.request("/tunnel", "Connection: Upgrade", "Upgrade: raw"))
    assert tunnel.receive_response().status == 101
    served = stage.client(balancer)
    served.send(message.request("/served"))
    backend.wait_for_requests(2)
    arriving = stage.client(balancer)
    arriving.send(b"GET /arriving HT")
    balancer.signal(signal.SIGTERM)
    assert balancer.wait_for_exit() == 0
    (line,) = [line for line in balancer.log().splitlines() if "drain timeout" in line]
    assert "tunnel=1" in line and "serving=1" in line and "reading_head=1" in line and "connections=3" in line
    found = {tree.span.attributes["error.type"] for tree in collector.wait_for_trees(2)}
    assert found == {"drain_timeout"}
