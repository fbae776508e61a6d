"""Starting and ending processes, and reading what a tree of them has cost from /proc.

Every process started here is the head of a session of its own and is ended with all its descendants by `Child.stop`;
callers use `Child` as a context manager, so that nothing outlives an error. Nothing here knows about proxies.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Self, TypeVar

from perf import http2

Result = TypeVar("Result")

CLOCK_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
STOP_TIMEOUT_SECONDS = 15
READY_TIMEOUT_SECONDS = 15


class BenchError(Exception):
    """What stops a run, in words for the person who started it."""


class Front(Enum):
    """How clients come to a server."""

    HTTP = auto()
    """HTTP/1.1 in cleartext."""
    H2C = auto()
    """HTTP/2 in cleartext by prior knowledge, the only one that some servers then speak on the port."""
    HTTPS = auto()
    """TLS, with HTTP/1.1 and HTTP/2 by ALPN."""


class Child:
    """A process with its session; output goes to `log`, which error messages quote."""

    def __init__(self, name: str, argv: list[str], directory: Path, cpu: int | None = None):
        """Starts `argv`, bound to the CPU of that number unless it is None."""
        self.name = name
        self.log = directory / f"{name}.log"
        pinned = argv if cpu is None else ["taskset", "-c", str(cpu), *argv]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                pinned, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                cwd=directory, start_new_session=True,
            )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        try:
            self.await_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def await_ready(self) -> None:
        """What a server overrides to return only when it serves."""

    def __exit__(self, *_: object) -> None:
        self.stop()

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, timeout_seconds: float) -> int:
        """Waits for the process to end by itself and returns its status."""
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.name} did not end in {timeout_seconds:.0f} s; it said:\n{self.tail()}") from None

    def tail(self) -> str:
        return self.output()[-2000:]

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        """Asks the process to end, then ends by force whatever of its tree is left."""
        survivors = descendants(self.pid)
        if not self.has_ended():
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_SECONDS)
        self._kill_session(survivors)
        self._process.wait()

    def _kill_session(self, survivors: list[int]) -> None:
        # The group covers nearly all; a descendant with a group of its own is known by the session it stays in, which
        # also tells it from a stranger who was given its pid meanwhile.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        for pid in survivors:
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) == self.pid:
                    os.kill(pid, signal.SIGKILL)

    def printed_port(self) -> int:
        """The port that the process prints as "port=N" once it listens."""
        return int(self._wait_for(lambda: re.search(r"port=(\d+)\n", self.output()), "print its port").group(1))

    def wait_until_serving(self, port: int, front: Front = Front.HTTP) -> None:
        """Returns when a GET of / on 127.0.0.1:`port` is answered with 200."""
        answers = answers_h2c if front is Front.H2C else answers_http1
        self._wait_for(lambda: answers(port, front is Front.HTTPS), f"answer on port {port}")

    def _wait_for(self, condition: Callable[[], Result | None], what: str) -> Result:
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if result := condition():
                return result
            if self.has_ended():
                raise BenchError(f"{self.name} ended before it could {what}; it said:\n{self.tail()}")
            time.sleep(0.02)
        raise BenchError(
            f"{self.name} did not {what} within {READY_TIMEOUT_SECONDS} s; it said:\n{self.tail()}")


def answers_http1(port: int, is_tls: bool) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    if is_tls:
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=context)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
        return response.status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def answers_h2c(port: int, _: bool) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            http2.get_root(connection, is_tls=False)
            return True
    except (OSError, http2.Http2Error):
        return False


def descendants(root: int) -> list[int]:
    """The process and all below it, parents first."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (fields := stat_fields(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat that follow the name: [0] is the state, [1] the parent, [11] utime, [12] stime."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


@dataclass(frozen=True)
class CpuTime:
    """CPU time of one or more processes, in nanoseconds."""

    user_ns: float = 0
    system_ns: float = 0

    @property
    def total_ns(self) -> float:
        return self.user_ns + self.system_ns

    def __add__(self, other: CpuTime) -> CpuTime:
        return CpuTime(self.user_ns + other.user_ns, self.system_ns + other.system_ns)


@dataclass(frozen=True)
class ProcessReading:
    """The counters of one process: exact run time, and ticks that serve to split it into user and system."""

    is_exporter: bool
    run_ns: int
    user_ticks: int
    system_ticks: int

    def since(self, earlier: ProcessReading | None) -> CpuTime:
        run_ns = self.run_ns - (earlier.run_ns if earlier else 0)
        user = self.user_ticks - (earlier.user_ticks if earlier else 0)
        system = self.system_ticks - (earlier.system_ticks if earlier else 0)
        user_share = user / (user + system) if user + system else 0.5
        return CpuTime(run_ns * user_share, run_ns * (1 - user_share))


@dataclass(frozen=True)
class TreeReading:
    """The counters of every process of a tree at one moment."""

    processes: dict[int, ProcessReading]

    @staticmethod
    def take(root: int) -> TreeReading:
        readings = {pid: read_process(pid) for pid in descendants(root)}
        return TreeReading({pid: reading for pid, reading in readings.items() if reading})

    def since(self, earlier: TreeReading) -> tuple[CpuTime, CpuTime]:
        """CPU time spent since `earlier`: (all but the exporter, the exporter)."""
        proxy, exporter = CpuTime(), CpuTime()
        for pid, reading in self.processes.items():
            spent = reading.since(earlier.processes.get(pid))
            if reading.is_exporter:
                exporter += spent
            else:
                proxy += spent
        return proxy, exporter

    def has_lost(self, earlier: TreeReading) -> bool:
        """Whether a process ended since `earlier` and took its CPU time with it."""
        return not earlier.processes.keys() <= self.processes.keys()


def read_process(pid: int) -> ProcessReading | None:
    fields = stat_fields(pid)
    if fields is None:
        return None
    user_ticks, system_ticks = int(fields[11]), int(fields[12])
    ticks_ns = (user_ticks + system_ticks) * 1_000_000_000 // CLOCK_TICKS_PER_SECOND
    return ProcessReading(is_exporter(pid), run_time_ns(pid) or ticks_ns, user_ticks, system_ticks)


def run_time_ns(pid: int) -> int:
    """The scheduler's run time of all threads (first field of schedstat); 0 where the kernel does not keep it."""
    total = 0
    try:
        for task in os.scandir(f"/proc/{pid}/task"):
            total += int(Path(task.path, "schedstat").read_text().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return total


def is_exporter(pid: int) -> bool:
    """Children of the load balancer carry their role in their name or, where that is cut, in their title."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace")
        title = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "exporter" in name or title.strip().endswith("exporter")


@dataclass(frozen=True)
class TreeMemory:
    """Proportional set size of a tree, in bytes: memory that processes share is counted once."""

    proxy_bytes: int
    exporter_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.proxy_bytes + self.exporter_bytes

    @staticmethod
    def take(root: int) -> TreeMemory:
        proxy = exporter = 0
        for pid in descendants(root):
            if is_exporter(pid):
                exporter += pss_bytes(pid)
            else:
                proxy += pss_bytes(pid)
        return TreeMemory(proxy, exporter)


def pss_bytes(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(kibibytes) * 1024 for kibibytes in re.findall(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE))
