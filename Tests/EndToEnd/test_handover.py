"""Clients that keep their connections over a reload notice nothing: the connection moves to the new worker."""

from __future__ import annotations

import os
import signal
import threading

from harness import message, processes
from harness.backends import BackendConnection
from harness.balancer import Balancer
from harness.stage import Stage
from harness.waiting import wait_until
from harness.wire import Connection
from test_reload import BOTH, Held, wait_for_end_of


def idle_client(stage: Stage, balancer: Balancer) -> Connection:
    """A client that was served once and waits."""
    client = stage.client(balancer)
    client.send(message.request("/before"))
    assert not client.receive_response().closes
    return client


def asks(client: Connection, target: str) -> None:
    client.send(message.request(target))
    response = client.receive_response()
    assert response.text == target and not response.closes


@BOTH
def test_idle_connection_goes_on_at_the_new_worker(stage: Stage, number: signal.Signals) -> None:
    collector = stage.collector()
    balancer = stage.balancer(stage.backend(), collector=collector, workers=2)
    clients = [idle_client(stage, balancer) for _ in range(8)]
    unused = stage.client(balancer)
    old = list(balancer.worker_pids().values())
    balancer.reload(number)
    wait_for_end_of(old)
    for index, client in enumerate([*clients, unused]):
        asks(client, f"/after/{index}")
    found = [tree.span for tree in collector.wait_for_trees(17)]
    after = [span for span in found if "/after/" in str(span.attributes["http.url"])]
    assert {span.attributes["lb.generation"] for span in after} == {2}
    ports = {client.sock.getsockname()[1] for client in [*clients, unused]}
    assert {span.attributes["net.peer.port"] for span in after} == ports, "the clients are known there"


def test_connection_follows_after_the_answer_of_the_old_worker(stage: Stage) -> None:
    held = Held()
    balancer = stage.balancer(stage.backend(held))
    client = stage.client(balancer)
    client.send(message.request("/held"))
    wait_until(lambda: held.arrived, "the request at the backend")
    old = list(balancer.worker_pids().values())
    balancer.reload()
    held.open()
    response = client.receive_response()
    assert response.text == "/held" and not response.closes
    wait_for_end_of(old)
    asks(client, "/next")


def test_more_connections_than_the_inbox_holds_at_once(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend())
    clients = [stage.client(balancer) for _ in range(700)]
    worker = balancer.worker_pid()
    wait_until(lambda: len(processes.tcp_sockets(worker)) >= 700, "the worker to have them all")
    balancer.reload()
    wait_for_end_of([worker])
    for index, client in enumerate(clients):
        asks(client, f"/{index}")


def test_busy_clients_lose_nothing_over_many_reloads(stage: Stage) -> None:
    """Each keeps its one connection through all of it."""
    balancer = stage.balancer(stage.backend(), workers=2)
    stop = threading.Event()
    counts, failures = [0] * 6, list[BaseException]()

    def run(number: int) -> None:
        client = balancer.connect()
        try:
            while not stop.is_set():
                asks(client, f"/{number}/{counts[number]}")
                counts[number] += 1
        except BaseException as error:
            failures.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(counts))]
    for thread in threads:
        thread.start()
    for round_number in range(5):
        goals = [count + 20 for count in counts]
        wait_until(lambda: failures or all(c >= g for c, g in zip(counts, goals, strict=True)), "more answers")
        balancer.reload(signal.SIGUSR2 if round_number == 2 else signal.SIGHUP)
    stop.set()
    for thread in threads:
        thread.join(15)
    assert not failures, failures


def test_crash_after_a_reload_is_told_by_its_generation(stage: Stage) -> None:
    def never(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.wait_for_end()

    collector = stage.collector()
    backend = stage.backend(never)
    balancer = stage.balancer(backend, collector=collector, expects_deaths=True)
    balancer.reload(signal.SIGUSR2)
    client = stage.client(balancer)
    client.send(message.request("/unfinished"))
    backend.wait_for_requests(1)
    (worker,) = balancer.worker_pids(2).values()
    os.kill(worker, signal.SIGKILL)
    (tree,) = collector.wait_for_trees(1)
    assert tree.span.error_type == "worker_crashed"
    assert tree.span.attributes["lb.generation"] == 2
    assert tree.span.attributes["worker.signal"] == int(signal.SIGKILL)


def test_draining_worker_that_dies_is_told_by_its_own_exporter(stage: Stage) -> None:
    held = Held()
    collector = stage.collector()
    balancer = stage.balancer(stage.backend(held), collector=collector, expects_deaths=True)
    client = stage.client(balancer)
    client.send(message.request("/held"))
    wait_until(lambda: held.arrived, "the request at the backend")
    balancer.reload()
    (old,) = balancer.draining_pids()
    os.kill(old, signal.SIGKILL)
    client.expect_end()
    held.open()
    (tree,) = collector.wait_for_trees(1)
    assert tree.span.error_type == "worker_crashed" and tree.span.attributes["lb.generation"] == 1
    assert balancer.get("/after").status == 200
