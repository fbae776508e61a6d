"""What service managers and containers ask for: notification, socket activation, pid file, user, orphans, units."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import message, processes
from harness.backends import named, serve
from harness.stage import Stage
from harness.waiting import PATIENCE_S, wait_until
from harness.wire import connect

_REPOSITORY = Path(__file__).resolve().parents[2]
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.settimeout(PATIENCE_S)
        self.environment = {"NOTIFY_SOCKET": address}

    def next(self) -> dict[str, str]:
        """The assignments of the next message."""
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().splitlines())

    def await_assignment(self, name: str) -> dict[str, str]:
        while name not in (message := self.next()):
            pass
        return message

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    abstract = f"@load_balancer_test.{os.getpid()}.{time.time()}"
    address = str(tmp_path / "notify") if request.param == "path" else abstract
    manager = Manager(address)
    yield manager
    manager.close()


def wrapper(stage: Stage, program: str) -> list[str]:
    """A command that runs `program` (Python) in front of the balancer, in the balancer's process."""
    path = stage.folder() / "wrapper.py"
    path.write_text(textwrap.dedent(program) + "\nimport os, sys\nos.execv(sys.argv[1], sys.argv[1:])\n")
    return [sys.executable, str(path)]


def configuration(stage: Stage, backend: str, **more: object) -> Path:
    path = stage.folder() / "lb.json"
    path.write_text(json.dumps({"backends": [backend], **more}))
    return path


def replace(path: Path, text: str) -> None:
    """As editors save."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


# Notification


def test_the_manager_is_told_of_the_whole_life(stage: Stage, manager: Manager) -> None:
    path = configuration(stage, stage.backend().address)
    balancer = stage.balancer([], "--config", str(path), environment=manager.environment, expects_deaths=True)
    ready = manager.next()
    assert ready["READY"] == "1" and ready["MAINPID"] == str(balancer.master)
    for number in (signal.SIGHUP, signal.SIGUSR2):
        balancer.signal(number)
        reloading = manager.next()
        assert reloading["RELOADING"] == "1"
        assert abs(int(reloading["MONOTONIC_USEC"]) - time.monotonic() * 1e6) < PATIENCE_S * 1e6
        ready = manager.next()
        assert ready["READY"] == "1" and ready["MAINPID"] == str(balancer.master)
    balancer.signal(signal.SIGTERM)
    assert manager.next()["STOPPING"] == "1"
    assert balancer.wait_for_exit() == 0


def test_a_reload_that_fails_ends_as_well(stage: Stage, manager: Manager) -> None:
    path = configuration(stage, stage.backend().address)
    balancer = stage.balancer([], "--config", str(path), environment=manager.environment)
    manager.await_assignment("READY")
    path.write_text("{")
    balancer.signal(signal.SIGUSR2)
    manager.await_assignment("RELOADING")
    manager.await_assignment("READY")
    assert balancer.get().status == 200


def test_the_watchdog_is_fed(stage: Stage, manager: Manager) -> None:
    manager.environment["WATCHDOG_USEC"] = "200000"
    stage.balancer(stage.backend(), environment=manager.environment)
    for _ in range(3):
        manager.await_assignment("WATCHDOG")


# Socket activation

ACTIVATION = """
    import os, socket, sys
    port = int(sys.argv[sys.argv.index("--port") + 1])
    listener = socket.create_server(("127.0.0.1", port))
    os.dup2(listener.fileno(), 3)
    os.set_inheritable(3, True)
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="http")
"""


def test_an_inherited_socket_serves_all_workers(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), workers=2, wrapper=wrapper(stage, ACTIVATION))
    assert all(balancer.get().status == 200 for _ in range(20))
    for pid in balancer.worker_pids().values():
        assert any(s.is_listening and s.local_port == balancer.port for s in processes.tcp_sockets(pid))
    for number in (signal.SIGHUP, signal.SIGUSR2):
        balancer.reload(number)
        assert all(balancer.get().status == 200 for _ in range(10))


def test_clients_of_an_inherited_socket_wait_for_the_next_start(stage: Stage) -> None:
    """The socket is not the balancer's: between two starts its queue takes clients, as systemd's does."""
    held = socket.create_server(("127.0.0.1", 0))
    port = held.getsockname()[1]
    program = f"""
        import os
        os.dup2({held.fileno()}, 3)
        os.set_inheritable(3, True)
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="http")
    """
    command = [*wrapper(stage, program), str(stage.binary), "-b", stage.backend().address, "--port", "0", "-w", "1"]

    def serve_one() -> None:
        client = connect(port)
        client.send(message.request("/waiting"))
        with subprocess.Popen(command, pass_fds=[held.fileno()], stderr=subprocess.DEVNULL) as process:
            assert client.receive_response().text == "/waiting"
            process.send_signal(signal.SIGTERM)
            client.expect_end()
            assert process.wait(PATIENCE_S) == 0

    with held:
        serve_one()
        serve_one()


def test_what_is_inherited_must_listen_for_tcp(stage: Stage) -> None:
    program = ACTIVATION.replace("socket.create_server((\"127.0.0.1\", port))", "socket.socket()")
    command = [*wrapper(stage, program), str(stage.binary), "-b", "127.0.0.1:1", "--port", "0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert result.returncode == 1
    assert "socket 3 does not listen" in result.stderr


# The pid file


def test_the_pid_file_stands_while_it_serves(stage: Stage) -> None:
    path = stage.folder() / "lb.pid"
    balancer = stage.balancer(stage.backend(), "--pid-file", str(path))
    wait_until(path.exists, "the pid file")
    assert path.read_text() == f"{balancer.master}\n"
    balancer.reload(signal.SIGUSR2)
    assert path.read_text() == f"{balancer.master}\n"
    balancer.signal(signal.SIGTERM)
    assert balancer.wait_for_exit() == 0
    assert list(path.parent.iterdir()) == []


def test_the_pid_file_of_a_successor_stays(stage: Stage) -> None:
    path = stage.folder() / "lb.pid"
    balancer = stage.balancer(stage.backend(), "--pid-file", str(path))
    wait_until(path.exists, "the pid file")
    path.write_text("1\n")
    balancer.signal(signal.SIGTERM)
    assert balancer.wait_for_exit() == 0
    assert path.read_text() == "1\n"


# Watching the file


def test_a_file_that_changes_is_reloaded(stage: Stage) -> None:
    backends = [stage.backend(serve(named(name))) for name in ("one", "two", "three")]
    path = configuration(stage, backends[0].address)
    balancer = stage.balancer([], "--config", str(path), "--watch-config", expects_deaths=True)
    assert balancer.get().text == "one"
    for backend, name in zip(backends[1:], ("two", "three")):
        replace(path, json.dumps({"backends": [backend.address]}))
        wait_until(lambda name=name: balancer.get().text == name, f"an answer of {name}")


def test_a_change_that_cannot_be_used_changes_nothing(stage: Stage) -> None:
    path = configuration(stage, stage.backend().address)
    balancer = stage.balancer([], "--config", str(path), "--watch-config", expects_deaths=True)
    replace(path, '{"timeout": 1}')
    wait_until(lambda: "timeouts" in balancer.log(), "the reason in the log")
    assert balancer.get().status == 200


def test_watching_needs_a_file(binary: Path) -> None:
    result = subprocess.run(
        [binary, "-b", "127.0.0.1:1", "--watch-config", "--check"], capture_output=True, text=True, timeout=PATIENCE_S)
    assert result.returncode == 2
    assert "--config" in result.stderr


# Users


def identity(pid: int) -> tuple[str, str, str]:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return fields["Uid"].strip(), fields["Gid"].strip(), fields["Groups"].strip()


@as_root
def test_children_give_root_up_and_the_master_does_not(stage: Stage) -> None:
    nobody = pwd.getpwnam("nobody")
    balancer = stage.balancer(stage.backend(), "--user", "nobody", collector=stage.collector())
    assert balancer.get().status == 200
    uid, gid = ("\t".join([str(number)] * 4) for number in (nobody.pw_uid, nobody.pw_gid))
    for pid in [*balancer.worker_pids().values(), balancer.exporter_pid()]:
        assert identity(pid) == (uid, gid, str(nobody.pw_gid))
    assert identity(balancer.master)[0].split()[0] == "0"
    balancer.reload(signal.SIGUSR2)
    assert balancer.get().status == 200
    wait_until(lambda: all(identity(p)[0] == uid for p in processes.children(balancer.master)), "children of nobody")


def test_an_unknown_user_is_refused(binary: Path) -> None:
    result = subprocess.run(
        [binary, "-b", "127.0.0.1:1", "--user", "no-such-user"], capture_output=True, text=True, timeout=PATIENCE_S)
    assert result.returncode == 2
    assert "no-such-user" in result.stderr


# Orphans

ORPHANS = """
    import ctypes, os, time
    assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0   # PR_SET_CHILD_SUBREAPER, which execve keeps
    for seconds in (0, 0.5, 1):
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(seconds)
                os._exit(0)
            os._exit(0)
"""


def test_orphans_are_reaped(stage: Stage) -> None:
    """As PID 1 of a container would have to."""
    balancer = stage.balancer(stage.backend(), wrapper=wrapper(stage, ORPHANS), expects_deaths=True)
    wait_until(lambda: len(processes.children(balancer.master)) == 1, "the orphans to be reaped")
    os.kill(balancer.worker_pid(), signal.SIGKILL)
    wait_until(lambda: "signal 9" in balancer.log(), "the worker's own end to be known")
    wait_until(lambda: len(balancer.worker_pids()) == 1, "a new worker")


# Units


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_units_are_valid(binary: Path, tmp_path: Path) -> None:
    units = []
    for source in sorted((_REPOSITORY / "packaging/systemd").iterdir()):
        unit = tmp_path / source.name
        unit.write_text(source.read_text().replace("/usr/local/bin/load_balancer", str(binary)))
        units.append(unit)
    assert len(units) == 2
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
