"""Starts the release binary, knows its processes, and stops it.

Stopping checks what must hold after every test, whatever the test was about: the balancer exits
with 0, no process of it stays behind, and no worker or exporter died on the way, unless the test
said that it kills some (`expects_deaths`).
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness import message, processes
from harness.waiting import PATIENCE_S, poll, wait_until
from harness.wire import Connection, Response, connect

_START_ATTEMPTS = 5
_WORKER_TITLE = re.compile(r"load_balancer: worker (\d+) \(generation (\d+)(, draining)?\)")
_EXPORTER_TITLE = re.compile(r"load_balancer: exporter\b")


class Balancer:
    """A running balancer: `master` is its first process, `port` where it accepts."""

    def __init__(
        self,
        binary: Path,
        directory: Path,
        flags: Sequence[str],
        *,
        workers: int | None = 1,
        address: str | None = "127.0.0.1",
        environment: dict[str, str] | None = None,
        wrapper: Sequence[str] = (),
        expects_deaths: bool = False,
    ) -> None:
        """
        `flags` is the command line without port, address and worker count; `wrapper` is a command
        that runs the binary, such as prlimit; `workers` and `address` None leave the default.
        """
        self._children_awaited = (workers or 1) + ("--otel-endpoint" in flags and "none" not in flags)
        self._workers_awaited = workers or 1
        self.expects_deaths = expects_deaths
        self._closing_pids: list[int] | None = None
        self._stdout, self._stderr = directory / "stdout", directory / "stderr"
        self._environment = clean_environment() | (environment or {})
        arguments = [*flags, *(["--workers", str(workers)] if workers else [])]
        arguments += ["--address", address] if address else []
        self._start([*wrapper, str(binary), *arguments])
        self._first_pids = self.child_pids()

    def _start(self, command: list[str]) -> None:
        """Another process can take a free port before the balancer does; then it is tried anew."""
        for _ in range(_START_ATTEMPTS):
            self.port = free_port()
            self._spawn([*command, "--port", str(self.port)])
            state = poll(lambda: self._is_ready() or self._has_exited(), PATIENCE_S)
            if state == "ready":
                return
            if state is None:
                self._terminate(self.child_pids())
            if self.exit_code() != 1 or str(self.port) not in self.log():
                break
        raise AssertionError(f"{command} did not start, exit code {self.exit_code()}:\n{self.log()}{self.output()}")

    def _spawn(self, command: list[str]) -> None:
        with open(self._stdout, "wb") as stdout, open(self._stderr, "wb") as stderr:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=self._environment
            )

    def _is_ready(self) -> str | None:
        if len(self.worker_pids()) < self._workers_awaited or len(self.child_pids()) < self._children_awaited:
            return None
        listens = any(s.is_listening and s.local_port == self.port for s in processes.tcp_sockets(self.master))
        return "ready" if listens else None

    def _has_exited(self) -> str | None:
        return "exited" if self.exit_code() is not None else None

    # Processes

    @property
    def master(self) -> int:
        return self._process.pid

    def child_pids(self) -> list[int]:
        return processes.children(self.master)

    def worker_pids(self, generation: int | None = None) -> dict[int, int]:
        """Worker number to pid, of those that have their name already; of the newest generation unless told."""
        workers: dict[int, dict[int, int]] = {}
        for pid in self.child_pids():
            if match := _WORKER_TITLE.match(processes.title(pid)):
                workers.setdefault(int(match.group(2)), {})[int(match.group(1))] = pid
        return workers.get(generation or max(workers, default=0), {})

    def draining_pids(self) -> list[int]:
        """Workers that finish what they have."""
        titles = {pid: _WORKER_TITLE.match(processes.title(pid)) for pid in self.child_pids()}
        return [pid for pid, match in titles.items() if match and match.group(3)]

    def reload(self, number: signal.Signals = signal.SIGUSR2) -> int:
        """Reloads, waits until the new generation serves, and returns its number."""
        generation = self.generation() + 1
        self.expects_deaths = True
        self.signal(number)
        wait_until(lambda: f"generation={generation} " in self.ready_lines(), f"generation {generation} to be ready")
        return generation

    def generation(self) -> int:
        """The number of the generation that was ready last."""
        return max((int(n) for n in re.findall(r"msg=ready .*\bgeneration=(\d+)", self.log())), default=1)

    def ready_lines(self) -> str:
        return "\n".join(line for line in self.log().splitlines() if "msg=ready " in line)

    def worker_pid(self, number: int = 0) -> int:
        return self.worker_pids()[number]

    def exporter_pid(self) -> int:
        return wait_until(self.find_exporter, "the exporter to have its name")

    def wait_for_new_exporter(self, old_pid: int) -> int:
        """Waits until the exporter runs with another pid than `old_pid`, and returns it."""
        return wait_until(lambda: _other_than(old_pid, self.find_exporter()), "a new exporter")

    def find_exporter(self) -> int | None:
        exporters = [p for p in self.child_pids() if _EXPORTER_TITLE.match(processes.title(p))]
        return exporters[0] if exporters else None

    def kill_worker(self, number: int = 0) -> int:
        """Kills with -9 and returns the pid of the dead."""
        pid = self.worker_pid(number)
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_for_new_worker(self, old_pid: int, number: int = 0) -> int:
        """Waits until worker `number` runs with another pid than `old_pid`, and returns it."""
        return wait_until(lambda: _other_than(old_pid, self.worker_pids().get(number)), f"a new worker {number}")

    def sockets_towards(self, port: int) -> list[processes.Socket]:
        """The workers' connections to a backend's port, in whatever state."""
        sockets = [s for pid in self.worker_pids().values() for s in processes.tcp_sockets(pid)]
        return [s for s in sockets if s.remote_port == port]

    # Talking to it

    def connect(self, timeout_s: float = PATIENCE_S) -> Connection:
        return connect(self.port, timeout_s=timeout_s)

    def get(self, target: str = "/", *fields: str) -> Response:
        """One GET on a connection of its own."""
        return self.exchange(message.request(target, *fields))

    def exchange(self, request: bytes) -> Response:
        """One request on a connection of its own."""
        connection = self.connect()
        try:
            connection.send(request)
            return connection.receive_response(request.split(b" ", 1)[0].decode())
        finally:
            connection.close()

    def log(self) -> str:
        """Standard error so far."""
        return self._stderr.read_text(errors="replace")

    def output(self) -> str:
        """Standard output so far."""
        return self._stdout.read_text(errors="replace")

    # Ending

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def exit_code(self) -> int | None:
        return self._process.poll()

    def wait_for_exit(self, timeout_s: float = PATIENCE_S) -> int:
        return self._process.wait(timeout_s)

    def begin_close(self) -> None:
        """Asks it to end, which takes a second; `close` waits for that, so several can end at the same time."""
        if self.exit_code() is None and self._closing_pids is None:
            self._closing_pids = self.child_pids()
            self.signal(signal.SIGTERM)

    def close(self) -> None:
        """Stops it, if it still runs, and checks what must always hold."""
        self.begin_close()
        if (last_pids := self._closing_pids) is None:
            return
        self._wait_or_kill(last_pids)
        assert self.exit_code() == 0, f"exited with {self.exit_code()}:\n{self.log()}"
        left = [pid for pid in last_pids if processes.is_alive(pid)]
        assert not left, f"left behind: {left}"
        if not self.expects_deaths:
            assert last_pids == self._first_pids, f"children died and came back:\n{self.log()}"

    def _terminate(self, children: list[int]) -> None:
        self.signal(signal.SIGTERM)
        self._wait_or_kill(children)

    def _wait_or_kill(self, children: list[int]) -> None:
        try:
            self.wait_for_exit()
        except subprocess.TimeoutExpired:
            for pid in [self.master, *children]:
                _kill_if_alive(pid)
            self.wait_for_exit()


def _other_than(old: int, new: int | None) -> int | None:
    return None if new == old else new


def _kill_if_alive(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def clean_environment() -> dict[str, str]:
    """This environment without what would configure the balancer behind the test's back."""
    return {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        probe.bind(("::", 0))
        port: int = probe.getsockname()[1]
        return port
