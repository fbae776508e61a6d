"""Processes: who ends when, who comes back, and what is not lost on the way."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from harness import message, processes
from harness.backends import BackendConnection, hello, never_answer, serve
from harness.balancer import Balancer
from harness.collector import Collector, Gate, hang
from harness.stage import Stage
from harness.waiting import PATIENCE_S, poll, wait_until
from harness.wire import PeerClosed

NEVER = "60"


def wait_for_end_of(pids: list[int]) -> None:
    wait_until(lambda: not any(map(processes.is_alive, pids)), f"the end of {pids}")


class Load:
    """Clients that send requests all the time, each on a connection that it renews when it breaks."""

    CLIENTS = 4

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.succeeded: list[str] = []
        self.failed = 0
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(self.CLIENTS)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(15)

    def wait_for_more(self, count: int) -> None:
        goal = len(self.succeeded) + count
        wait_until(lambda: len(self.succeeded) >= goal, f"{count} more answers")

    def _run(self, client: int) -> None:
        number = 0
        while not self._stop.is_set():
            try:
                number = self._use_one_connection(client, number)
            except (OSError, PeerClosed):
                number += 1
                with self._lock:
                    self.failed += 1

    def _use_one_connection(self, client: int, number: int) -> int:
        connection = self._balancer.connect()
        try:
            for _ in range(20):
                target = f"/{client}/{number}"
                connection.send(message.request(target))
                assert connection.receive_response().text == target
                number += 1
                with self._lock:
                    self.succeeded.append(target)
        finally:
            connection.close()
        return number


# A worker dies


def test_killed_worker_comes_back_and_the_others_go_on(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), workers=2, expects_deaths=True)
    load = stage.keep(Load(balancer))
    load.wait_for_more(50)
    other = balancer.worker_pid(1)
    dead = balancer.kill_worker(0)
    load.wait_for_more(50)
    balancer.wait_for_new_worker(dead)
    load.wait_for_more(50)
    load.close()
    assert balancer.worker_pid(1) == other
    assert load.failed <= Load.CLIENTS, "only requests in flight may fail"


def test_only_worker_that_dies_comes_back(stage: Stage) -> None:
    """Clients that connect meanwhile wait in the listener's queue, which the master keeps."""
    balancer = stage.balancer(stage.backend(), expects_deaths=True)
    dead = balancer.kill_worker()
    client = stage.client(balancer)
    client.send(message.request("/patient"))
    assert client.receive_response().text == "/patient"
    assert balancer.worker_pid() != dead


def test_spans_of_a_killed_worker_are_delivered(stage: Stage) -> None:
    """They are in shared memory, which outlives it. The collector holds back until it is dead."""
    gate = Gate()
    collector = stage.collector(*[gate] * 20)
    balancer = stage.balancer(stage.backend(), collector=collector, expects_deaths=True)
    client = stage.client(balancer)
    for number in range(50):
        client.send(message.request(f"/{number}"))
        assert client.receive_response().status == 200
    dead = balancer.kill_worker()
    balancer.wait_for_new_worker(dead)
    gate.open()
    delivered = _wait_for_targets(collector, [f"/{number}" for number in range(49)])
    assert len(delivered) >= 49, "all but the last had certainly been recorded"


def _wait_for_targets(collector: Collector, expected: list[str]) -> set[str]:
    wait_until(lambda: set(expected) <= _delivered_targets(collector), "all spans", timeout_s=20)
    return _delivered_targets(collector)


def _delivered_targets(collector: Collector) -> set[str]:
    urls = {str(span.attributes["http.url"]) for span in collector.accepted_spans if span.kind == "SERVER"}
    return {url.removeprefix("http://example.test") for url in urls}


def test_spans_of_finished_requests_survive_a_kill_under_load(stage: Stage) -> None:
    """A worker answers first and records then, so each connection's last request may lack its tree."""
    collector = stage.collector()
    balancer = stage.balancer(stage.backend(), collector=collector, workers=2, expects_deaths=True)
    load = stage.keep(Load(balancer))
    load.wait_for_more(100)
    dead = balancer.kill_worker(0)
    balancer.wait_for_new_worker(dead)
    load.wait_for_more(100)
    load.close()
    balancer.close()

    def missing() -> set[str]:
        return set(load.succeeded) - _delivered_targets(collector)

    assert poll(lambda: len(missing()) <= Load.CLIENTS, PATIENCE_S), f"lost {missing()} of {len(load.succeeded)}"


def test_new_worker_traces_too(stage: Stage) -> None:
    collector = stage.collector()
    balancer = stage.balancer(stage.backend(), collector=collector, expects_deaths=True)
    balancer.get("/before")
    balancer.wait_for_new_worker(balancer.kill_worker())
    balancer.get("/after")
    found = collector.wait_for_trees(2)
    assert len({tree.span.trace_id for tree in found}) == 2


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_death_of_a_worker_is_logged(stage: Stage, number: signal.Signals) -> None:
    balancer = stage.balancer(stage.backend(), expects_deaths=True)
    pid = balancer.worker_pid()
    os.kill(pid, number)
    balancer.wait_for_new_worker(pid)
    lines = [line for line in balancer.log().splitlines() if str(pid) in line]
    assert any(str(int(number)) in line or number.name in line for line in lines), balancer.log()


def test_crash_loop_is_slowed_down(stage: Stage) -> None:
    """From the second death on, each makes the next start later: 0.1 s, 0.2 s, 0.4 s, 0.8 s at least."""
    balancer = stage.balancer(stage.backend(), expects_deaths=True)
    before = processes.cpu_time_s(balancer.master)
    gaps = []
    for _ in range(5):
        start = time.monotonic()
        balancer.wait_for_new_worker(balancer.kill_worker())
        gaps.append(time.monotonic() - start)
    assert all(gap >= 0.05 * 2**deaths for deaths, gap in enumerate(gaps) if deaths > 0), gaps
    assert processes.cpu_time_s(balancer.master) - before < 0.5
    assert balancer.get("/").status == 200


def test_nobody_stays_a_zombie(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), collector=stage.collector(), workers=2, expects_deaths=True)
    for number in range(2):
        balancer.wait_for_new_worker(balancer.kill_worker(number), number)
    os.kill(balancer.exporter_pid(), signal.SIGKILL)
    wait_until(lambda: len(balancer.child_pids()) == 3, "three children")
    wait_until(lambda: all(processes.is_alive(pid) for pid in balancer.child_pids()), "no zombie")


# The exporter dies


def test_killed_exporter_comes_back_and_loses_nothing(stage: Stage) -> None:
    gate = Gate()
    collector = stage.collector(*[gate] * 20)
    balancer = stage.balancer(stage.backend(), collector=collector, expects_deaths=True)
    targets = [f"/{number}" for number in range(50)]
    for target in targets[:25]:
        assert balancer.get(target).status == 200
    collector.wait_for_posts(1)
    dead = balancer.exporter_pid()
    os.kill(dead, signal.SIGKILL)
    for target in targets[25:]:
        assert balancer.get(target).status == 200
    balancer.wait_for_new_exporter(dead)
    gate.open()
    assert _wait_for_targets(collector, targets) == set(targets)


def test_worker_pids_survive_the_death_of_the_exporter(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), collector=stage.collector(), workers=2, expects_deaths=True)
    before = balancer.worker_pids()
    dead = balancer.exporter_pid()
    os.kill(dead, signal.SIGKILL)
    balancer.wait_for_new_exporter(dead)
    assert balancer.worker_pids() == before


# The master dies


def test_children_end_with_a_killed_master(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), collector=stage.collector(), workers=2)
    children = balancer.child_pids()
    assert len(children) == 3
    balancer.signal(signal.SIGKILL)
    balancer.wait_for_exit()
    wait_for_end_of(children)


def test_spans_are_flushed_although_the_master_was_killed(stage: Stage) -> None:
    collector = stage.collector()
    flags = ["--otel-batch-delay", NEVER, "--otel-batch-size", "100000"]
    balancer = stage.balancer(stage.backend(), *flags, collector=collector)
    for number in range(5):
        balancer.get(f"/{number}")
    children = balancer.child_pids()
    balancer.signal(signal.SIGKILL)
    balancer.wait_for_exit()
    wait_for_end_of(children)
    assert len(collector.wait_for_trees(5)) == 5


# Draining


class Answering:
    """A backend that answers when the test says so."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def script(self, connection: BackendConnection) -> None:
        connection.receive_request()
        assert self.go.wait(20)
        connection.send(message.response(b"finished"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_drain_finishes_what_is_in_flight(stage: Stage, number: signal.Signals) -> None:
    answering = Answering()
    backend = stage.backend(answering.script)
    collector = stage.collector()
    flags = ["--otel-batch-delay", NEVER, "--otel-batch-size", "100000"]
    balancer = stage.balancer(backend, *flags, collector=collector, workers=2)
    children = balancer.child_pids()
    client = stage.client(balancer)
    client.send(message.request("/in-flight"))
    backend.wait_for_requests(1)
    balancer.signal(number)
    assert client.is_silent_for(0.3), "the request in flight goes on"
    answering.go.set()
    response = client.receive_response()
    assert response.body == b"finished" and response.closes
    client.expect_end()
    client.close()
    assert balancer.wait_for_exit() == 0
    assert not any(map(processes.is_alive, children))
    assert len(collector.wait_for_trees(1)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_whole_process_group_drains_too(stage: Stage, number: signal.Signals) -> None:
    """As a terminal does at ^C, and systemd unless told otherwise; no child may take it for its own end."""
    answering = Answering()
    backend = stage.backend(answering.script)
    collector = stage.collector()
    flags = ["--otel-batch-delay", NEVER, "--otel-batch-size", "100000"]
    balancer = stage.balancer(backend, *flags, collector=collector, workers=2)
    client = stage.client(balancer)
    client.send(message.request("/in-flight"))
    backend.wait_for_requests(1)
    for pid in [*balancer.child_pids(), balancer.master]:
        os.kill(pid, number)
    assert client.is_silent_for(0.3), "the request in flight goes on"
    answering.go.set()
    assert client.receive_response().body == b"finished"
    client.close()
    assert balancer.wait_for_exit() == 0
    assert len(collector.wait_for_trees(1)) == 1


def test_exporter_killed_while_draining_loses_nothing(stage: Stage) -> None:
    answering = Answering()
    backend = stage.backend(answering.script)
    collector = stage.collector()
    flags = ["--otel-batch-delay", NEVER, "--otel-batch-size", "100000"]
    balancer = stage.balancer(backend, *flags, collector=collector, expects_deaths=True)
    client = stage.client(balancer)
    client.send(message.request("/in-flight"))
    backend.wait_for_requests(1)
    balancer.signal(signal.SIGTERM)
    assert client.is_silent_for(0.2)
    dead = balancer.exporter_pid()
    os.kill(dead, signal.SIGKILL)
    balancer.wait_for_new_exporter(dead)
    answering.go.set()
    assert client.receive_response().body == b"finished"
    client.close()
    assert balancer.wait_for_exit() == 0
    assert len(collector.wait_for_trees(1)) == 1


def test_exporter_killed_while_flushing_loses_nothing(stage: Stage) -> None:
    """What it had not delivered is still in shared memory when it dies."""
    collector = stage.collector(hang)
    flags = ["--otel-batch-delay", NEVER, "--otel-batch-size", "100000"]
    balancer = stage.balancer(stage.backend(), *flags, collector=collector, expects_deaths=True)
    for number in range(3):
        balancer.get(f"/{number}")
    balancer.signal(signal.SIGTERM)
    collector.wait_for_posts(1)
    os.kill(balancer.exporter_pid(), signal.SIGKILL)
    assert balancer.wait_for_exit() == 0
    assert len(collector.wait_for_trees(3)) == 3


def test_drain_closes_idle_connections(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend())
    idle, unused = stage.client(balancer), stage.client(balancer)
    idle.send(message.request("/"))
    assert idle.receive_response().status == 200
    balancer.signal(signal.SIGTERM)
    idle.expect_end()
    unused.expect_end()
    assert balancer.wait_for_exit() == 0


def test_drain_finishes_an_upload(stage: Stage) -> None:
    backend = stage.backend(serve(hello))
    balancer = stage.balancer(backend)
    client = stage.client(balancer)
    client.send(message.request("/up", "Content-Length: 10", method="POST") + b"half.")
    backend.wait_for_connections(1)
    balancer.signal(signal.SIGTERM)
    assert client.is_silent_for(0.2)
    client.send(b"half.")
    assert client.receive_response().text == "/up"
    client.close()
    assert balancer.wait_for_exit() == 0


def test_drain_is_bounded(stage: Stage) -> None:
    backend = stage.backend(never_answer)
    balancer = stage.balancer(backend, "--drain-timeout", "0.5")
    client = stage.client(balancer)
    client.send(message.request("/hangs"))
    backend.wait_for_requests(1)
    balancer.signal(signal.SIGTERM)
    assert balancer.wait_for_exit() == 0
    client.sock.close()


def test_second_signal_ends_at_once(stage: Stage) -> None:
    backend = stage.backend(never_answer)
    balancer = stage.balancer(backend, "--drain-timeout", "50", collector=stage.collector())
    children = balancer.child_pids()
    client = stage.client(balancer)
    client.send(message.request("/hangs"))
    backend.wait_for_requests(1)
    balancer.signal(signal.SIGTERM)
    wait_until(lambda: _listens_no_more(balancer) or client.is_silent_for(0.3), "the drain to begin")
    balancer.signal(signal.SIGTERM)
    balancer.wait_for_exit()
    wait_for_end_of(children)


def _listens_no_more(balancer: Balancer) -> bool:
    return not any(s.is_listening for s in processes.tcp_sockets(balancer.worker_pid()))


def test_worker_killed_while_draining_does_not_come_back(stage: Stage) -> None:
    backend = stage.backend(never_answer)
    balancer = stage.balancer(backend, "--drain-timeout", "50", workers=1, expects_deaths=True)
    client = stage.client(balancer)
    client.send(message.request("/hangs"))
    backend.wait_for_requests(1)
    balancer.signal(signal.SIGTERM)
    assert client.is_silent_for(0.3)
    balancer.kill_worker()
    assert balancer.wait_for_exit() == 0


# What children hold


def listening(pid: int) -> list[processes.Socket]:
    return [sock for sock in processes.tcp_sockets(pid) if sock.is_listening]


def test_children_hold_only_what_they_need(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), collector=stage.collector(), workers=3)
    owned = [{sock.inode for sock in listening(pid)} for pid in balancer.worker_pids().values()]
    assert [len(inodes) for inodes in owned] == [1, 1, 1], "one listener each"
    assert len(set.union(*owned)) == 3, "and each its own"
    assert listening(balancer.exporter_pid()) == []
    assert {sock.inode for sock in listening(balancer.master)} >= set.union(*owned), "the master keeps them all"


def test_respawned_worker_holds_no_more_than_the_first(stage: Stage) -> None:
    """Descriptors of the others, made after the first fork, must not leak into the second."""
    balancer = stage.balancer(stage.backend(), collector=stage.collector(), workers=2, expects_deaths=True)
    first = len(processes.open_files(balancer.worker_pid(0)))
    for _ in range(2):
        balancer.wait_for_new_worker(balancer.kill_worker(0), 0)
    again = balancer.worker_pid(0)
    wait_until(lambda: len(processes.open_files(again)) == first, f"{first} open files")
    assert len(listening(again)) == 1


def test_requests_leak_no_descriptor(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), "--upstream-max-idle", "1")
    assert balancer.get("/").status == 200
    worker = balancer.worker_pid()
    before = len(processes.open_files(worker))
    for number in range(50):
        balancer.get(f"/{number}")
        balancer.connect().close()
        broken = balancer.connect()
        broken.send(message.request("/broken"))
        broken.reset()
    wait_until(lambda: len(processes.open_files(worker)) <= before, f"{before} open files again")


def test_master_leaks_no_descriptor_when_workers_die(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), expects_deaths=True)
    before = len(processes.open_files(balancer.master))
    for _ in range(3):
        balancer.wait_for_new_worker(balancer.kill_worker())
    wait_until(lambda: len(processes.open_files(balancer.master)) == before, f"{before} open files again")


def test_every_process_has_one_thread(stage: Stage) -> None:
    """The master forks again later, and a worker shares nothing: neither may have a second thread."""
    balancer = stage.balancer(stage.backend(), collector=stage.collector(), workers=2)
    balancer.get("/")
    for pid in [balancer.master, *balancer.worker_pids().values()]:
        assert len(os.listdir(f"/proc/{pid}/task")) == 1


# Placement


def test_pinned_workers_have_a_cpu_each(stage: Stage) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    balancer = stage.balancer(stage.backend(), "--pin-workers", workers=len(cpus))
    placed = [os.sched_getaffinity(pid) for _, pid in sorted(balancer.worker_pids().items())]
    assert all(len(cpu_set) == 1 for cpu_set in placed)
    assert set.union(*placed) == set(cpus)


def test_workers_are_not_pinned_by_default(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend())
    assert os.sched_getaffinity(balancer.worker_pid()) == os.sched_getaffinity(0)


@pytest.mark.parametrize("cpus", [1, len(os.sched_getaffinity(0))])
def test_default_number_of_workers_is_the_number_of_usable_cpus(stage: Stage, cpus: int) -> None:
    usable = ",".join(map(str, sorted(os.sched_getaffinity(0))[:cpus]))
    balancer = stage.balancer(stage.backend(), workers=None, wrapper=["taskset", "--cpu-list", usable])
    wait_until(lambda: len(balancer.worker_pids()) == cpus, f"{cpus} workers")
    assert len(balancer.child_pids()) == cpus
