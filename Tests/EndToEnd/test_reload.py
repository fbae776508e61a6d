"""Reloads: SIGHUP starts new workers, SIGUSR2 a new program as well, and nothing is lost on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest

from harness import message, processes
from harness.backends import BackendConnection
from harness.balancer import Balancer, free_port
from harness.collector import Collector, Gate
from harness.stage import Stage
from harness.waiting import PATIENCE_S, poll, wait_until
from harness.wire import Connection, connect

BOTH = pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2], ids=lambda number: number.name)


def wait_for_end_of(pids: list[int]) -> None:
    wait_until(lambda: not any(map(processes.is_alive, pids)), f"the end of {pids}")


def listening_inodes(balancer: Balancer) -> set[int]:
    sockets = processes.tcp_sockets(balancer.master)
    return {s.inode for s in sockets if s.is_listening and s.local_port == balancer.port}


class Held:
    """A backend script that keeps /held… waiting until the test says so."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self.arrived = 0

    def open(self) -> None:
        self._opened.set()

    def __call__(self, connection: BackendConnection) -> None:
        while True:
            request = connection.receive_request()
            if request.target.startswith("/held"):
                self.arrived += 1
                assert self._opened.wait(PATIENCE_S * 2), "the test never opened the gate"
            connection.send(message.response(request.target.encode()))


def own_program(stage: Stage) -> Path:
    """A copy of the program that a test may replace."""
    path = stage.folder() / "load_balancer"
    shutil.copy2(stage.binary, path)
    return path


def balancer_of(stage: Stage, program: Path, *flags: str, workers: int = 1) -> Balancer:
    original, stage.binary = stage.binary, program
    try:
        return stage.balancer(stage.backend(), *flags, workers=workers)
    finally:
        stage.binary = original


def replace(program: Path, text: str) -> None:
    """Puts a script in the program's place, as a deployment would: by rename."""
    new = program.with_name("new")
    new.write_text(text)
    new.chmod(new.stat().st_mode | stat.S_IXUSR)
    new.rename(program)


@BOTH
def test_workers_are_replaced_and_the_rest_stays(stage: Stage, number: signal.Signals) -> None:
    balancer = stage.balancer(stage.backend(), workers=2)
    master, inodes, old = balancer.master, listening_inodes(balancer), list(balancer.worker_pids().values())
    assert balancer.reload(number) == 2
    wait_for_end_of(old)
    assert balancer.master == master and processes.is_alive(master)
    assert listening_inodes(balancer) == inodes, "the sockets are the same"
    assert sorted(balancer.worker_pids(2)) == [0, 1]
    assert balancer.get("/after").text == "/after"
    assert "level=error" not in balancer.log()


@BOTH
def test_generation_is_in_the_spans(stage: Stage, number: signal.Signals) -> None:
    collector = stage.collector()
    balancer = stage.balancer(stage.backend(), collector=collector)
    balancer.get("/one")
    balancer.reload(number)
    balancer.get("/two")
    trees = collector.wait_for_trees(2)
    generations = {str(t.span.attributes["http.url"])[-4:]: t.span.attributes["lb.generation"] for t in trees}
    assert generations == {"/one": 1, "/two": 2}
    instances = {span.resource["service.instance.id"] for span in collector.accepted_spans}
    assert len(instances) == 1, "one master, one instance"


@BOTH
def test_many_reloads_leave_nothing_behind(stage: Stage, number: signal.Signals) -> None:
    collector = stage.collector()
    balancer = stage.balancer(stage.backend(), collector=collector, workers=2)
    balancer.reload(number)
    wait_until(lambda: len(balancer.child_pids()) == 3, "the first generation to end")
    before = sorted(processes.open_files(balancer.master).values(), key=lambda name: name.split(":")[0])
    for _ in range(10):
        balancer.reload(number)
    wait_until(lambda: len(balancer.child_pids()) == 3, "the old generations to end")
    after = sorted(processes.open_files(balancer.master).values(), key=lambda name: name.split(":")[0])
    assert [name.split(":")[0] for name in after] == [name.split(":")[0] for name in before]


def test_request_in_flight_is_finished_by_the_old_worker(stage: Stage) -> None:
    held = Held()
    balancer = stage.balancer(stage.backend(held))
    client = stage.client(balancer)
    client.send(message.request("/held"))
    wait_until(lambda: held.arrived, "the request at the backend")
    balancer.reload()
    assert balancer.draining_pids(), "it has a request to finish"
    assert balancer.get("/quick").status == 200, "served by the new worker"
    held.open()
    response = client.receive_response()
    assert response.status == 200
    wait_until(lambda: not balancer.draining_pids(), "the old worker to end")


def test_program_that_is_missing_changes_nothing(stage: Stage) -> None:
    program = own_program(stage)
    balancer = balancer_of(stage, program)
    old = balancer.worker_pids()
    program.unlink()
    balancer.signal(signal.SIGUSR2)
    wait_until(lambda: "reload failed, going on unchanged" in balancer.log(), "the failure in the log")
    assert "No such file" in balancer.log()
    assert balancer.worker_pids() == old
    assert balancer.get("/still").text == "/still"


def test_failed_check_changes_nothing_and_says_why(stage: Stage) -> None:
    program = own_program(stage)
    balancer = balancer_of(stage, program)
    old = balancer.worker_pids()
    replace(program, "#!/bin/sh\necho 'load_balancer: no such flag' >&2\nexit 2\n")
    balancer.signal(signal.SIGUSR2)
    wait_until(lambda: "no such flag" in balancer.log(), "the reason in the log")
    assert balancer.worker_pids() == old
    shutil.copy2(stage.binary, program.with_name("good"))
    program.with_name("good").rename(program)
    assert balancer.reload() == 2, "the next one works"


def test_check_that_hangs_is_given_up(stage: Stage) -> None:
    program = own_program(stage)
    balancer = balancer_of(stage, program, "--ready-timeout", "0.5")
    replace(program, "#!/bin/sh\nexec sleep 600\n")
    balancer.signal(signal.SIGUSR2)
    wait_until(lambda: "the check takes too long" in balancer.log(), "the end of the check")
    assert balancer.get("/still").text == "/still"
    wait_until(lambda: len(balancer.child_pids()) == 1, "the check to be gone")


def test_program_that_cannot_take_over_leaves_workers_serving(stage: Stage) -> None:
    """It passes the check and then fails: what it was handed ends in order, nobody stays behind."""
    program = own_program(stage)
    balancer = balancer_of(stage, program)
    children = balancer.child_pids()
    replace(program, '#!/bin/sh\ncase "$*" in *--check*) exit 0;; esac\nexit 3\n')
    balancer.expects_deaths = True
    balancer.signal(signal.SIGUSR2)
    assert balancer.wait_for_exit() == 3
    wait_for_end_of(children)


def test_generation_that_is_not_ready_is_given_up(stage: Stage) -> None:
    """One of its workers is stopped before it can report."""
    balancer = stage.balancer(stage.backend(), "--ready-timeout", "1", workers=16)
    old = balancer.worker_pids()
    for _ in range(20):
        serving = balancer.generation()
        balancer.expects_deaths = True
        if stopped := stop_a_new_worker(balancer):
            break
        wait_until(lambda: balancer.generation() > serving, "the reload that was too fast")
        wait_until(lambda: len(balancer.child_pids()) == 16, "its predecessor's end")
        old = balancer.worker_pids()
    assert stopped, "a worker that was stopped in time"
    wait_until(lambda: "the old generation goes on" in balancer.log(), "the failure in the log")
    assert balancer.get("/still").status == 200
    os.kill(stopped, signal.SIGCONT)
    wait_until(lambda: sorted(balancer.child_pids()) == sorted(old.values()), "the failed generation to be gone")
    assert balancer.get("/still").status == 200


def test_listeners_of_a_generation_that_failed_are_served(stage: Stage) -> None:
    """Sixteen workers were to come; the one that stays accepts from their listeners as well."""
    path = stage.folder() / "lb.json"
    path.write_text('{"workers": 1}')
    balancer = stage.balancer(
        stage.backend(), "--config", str(path), "--ready-timeout", "1", workers=None, expects_deaths=True
    )
    for _ in range(20):
        path.write_text('{"workers": 16}')
        if stopped := stop_a_new_worker(balancer):
            break
        path.write_text('{"workers": 1}')
        balancer.reload()
        wait_until(lambda: len(balancer.child_pids()) == 1, "one worker again")
    assert stopped, "a worker that was stopped in time"
    wait_until(lambda: "the old generation goes on" in balancer.log(), "the failure in the log")
    os.kill(stopped, signal.SIGCONT)
    wait_until(lambda: len(balancer.child_pids()) == 1, "the failed generation to be gone")
    for number in range(64):
        assert balancer.get(f"/{number}").text == f"/{number}"


def stop_a_new_worker(balancer: Balancer) -> int | None:
    """Reloads and stops a new worker; None when the generation was ready before."""
    old, serving = set(balancer.child_pids()), balancer.generation()
    children = Path(f"/proc/{balancer.master}/task/{balancer.master}/children")
    balancer.signal(signal.SIGHUP)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for pid in map(int, children.read_text().split()):
            if pid in old:
                continue
            os.kill(pid, signal.SIGSTOP)
            if poll(lambda: balancer.generation() > serving, 0.3):
                os.kill(pid, signal.SIGCONT)
                return None
            return pid
    return None


def test_reloads_in_quick_succession_settle(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), workers=2)
    balancer.expects_deaths = True
    for number in [signal.SIGUSR2, signal.SIGHUP, signal.SIGUSR2, signal.SIGUSR2, signal.SIGHUP]:
        balancer.signal(number)
    wait_until(lambda: balancer.generation() >= 2, "a reload that covers them all")
    wait_until(lambda: not balancer.draining_pids() and len(balancer.child_pids()) == 2, "one generation")
    assert balancer.get("/after").text == "/after"
    assert "level=error" not in balancer.log()


@BOTH
def test_termination_during_a_reload_ends_everything(stage: Stage, number: signal.Signals) -> None:
    balancer = stage.balancer(stage.backend(), workers=4)
    balancer.expects_deaths = True
    balancer.signal(number)
    balancer.signal(signal.SIGTERM)
    assert balancer.wait_for_exit() == 0


def test_worker_that_dies_during_a_reload_does_not_stop_it(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), workers=2)
    balancer.expects_deaths = True
    balancer.kill_worker(0)
    balancer.reload()
    wait_until(lambda: sorted(balancer.worker_pids()) == [0, 1], "two workers")
    assert balancer.get("/after").text == "/after"


def test_too_many_draining_generations_end_the_oldest(stage: Stage) -> None:
    held = Held()
    balancer = stage.balancer(stage.backend(held), "--max-draining", "1")
    clients = []
    for generation in (1, 2):
        client = stage.client(balancer)
        client.send(message.request(f"/held/{generation}"))
        clients.append(client)
        wait_until(lambda: held.arrived == generation, "the request at the backend")
        assert balancer.reload() == generation + 1
    wait_until(lambda: "too many generations drain" in balancer.log(), "the oldest to be ended")
    wait_until(lambda: len(balancer.draining_pids()) == 1, "one draining generation")
    held.open()
    assert clients[1].receive_response().status == 200


def test_exporter_that_dies_after_an_exec_delivers_the_old_generation(stage: Stage) -> None:
    """Its successor is forked by another image, which took the spans' memory over."""
    gate = Gate()
    collector = stage.collector(*[gate] * 40)
    held = Held()
    balancer = stage.balancer(stage.backend(held), collector=collector)
    client = stage.client(balancer)
    client.send(message.request("/held"))
    wait_until(lambda: held.arrived, "the request at the backend")
    for number in range(20):
        balancer.get(f"/{number}")
    exporter = balancer.exporter_pid()
    balancer.reload()
    os.kill(exporter, signal.SIGKILL)
    gate.open()
    held.open()
    assert client.receive_response().status == 200
    expected = {f"/{number}" for number in range(20)} | {"/held"}
    wait_until(lambda: expected <= delivered(collector), "all spans", timeout_s=20)


def delivered(collector: Collector) -> set[str]:
    urls = {str(span.attributes["http.url"]) for span in collector.accepted_spans if span.kind == "SERVER"}
    return {url.removeprefix("http://example.test") for url in urls}


def test_worker_that_does_not_turn_is_replaced(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), "--worker-stall-timeout", "1", expects_deaths=True)
    stalled = balancer.worker_pid()
    os.kill(stalled, signal.SIGSTOP)
    wait_until(lambda: "a worker does not turn" in balancer.log(), "the watchdog")
    balancer.wait_for_new_worker(stalled)
    assert balancer.get("/after").text == "/after"


def test_idle_worker_is_not_taken_for_one_that_hangs(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), "--worker-stall-timeout", "0.5")
    time.sleep(2)
    assert "a worker does not turn" not in balancer.log()


@BOTH
def test_listener_moves_to_another_port(stage: Stage, number: signal.Signals) -> None:
    """The new port serves, what is under way on the old one is finished, and then that one is closed."""
    held = Held()
    backend, path, log = stage.backend(held), stage.folder() / "lb.json", stage.folder() / "log"
    old, new = free_port(), free_port()

    def listen_on(port: int) -> None:
        listener = {"address": "127.0.0.1", "port": port}
        path.write_text(json.dumps({"listeners": [listener], "backends": [backend.address], "workers": 2}))

    listen_on(old)
    with log.open("wb") as stderr:
        process = subprocess.Popen([stage.binary, "--config", str(path)], stderr=stderr)
    try:
        under_way = wait_until(lambda: try_connect(old), "the old port")
        under_way.send(message.request("/held"))
        wait_until(lambda: held.arrived, "the request at the backend")
        listen_on(new)
        process.send_signal(number)
        client = wait_until(lambda: try_connect(new), "the new port")
        client.send(message.request("/new"))
        assert client.receive_response().text == "/new"
        held.open()
        assert under_way.receive_response().status == 200
        wait_until(lambda: not try_connect(old), "the old port to be closed")
        assert "level=error" not in log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def try_connect(port: int) -> Connection | None:
    try:
        return connect(port, timeout_s=1)
    except OSError:
        return None
