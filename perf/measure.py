"""The three measurements: CPU time and latency of a load, memory, and delivery of traces.

Each starts the proxy afresh, looks at /proc before and after, and ends it. What is measured with which numbers is
decided in cases.py; what is printed, in report.py.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from perf.load import Destination, FullLoad, IdleConnections, Load, LoadResult
from perf.machine import Placement, busy_seconds, reaped_seconds
from perf.origin import TLS13_CIPHER, Collector, Received, certificate, free_port
from perf.peers import COMPETITORS, Peer, Programs, RunningPeer, Setting
from perf.processes import BenchError, CpuTime, Front, TreeMemory, TreeReading

# A trace tree has exactly one span of this name, so its occurrences in the posts are the trees that arrived.
ROOT_SPAN_NAME = "proxy_request"
# An exporter that took less than this between two looks (1 % of a CPU) has nothing more to send.
EXPORTER_QUIET_NS = 2_500_000
EXPORTER_LOOK_SECONDS = 0.25
EXPORTER_TIMEOUT_SECONDS = 15
# The load balancer packs an HTTP/2 session that has been silent for one to two seconds.
MEMORY_SETTLE_SECONDS = 3
FOREIGN_SHARE_NOTED = 0.05
USUAL_TLS = ("", f"TLSv1.3 {TLS13_CIPHER}", "TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256")


@dataclass
class Bench:
    """What every measurement needs."""

    directory: Path
    placement: Placement
    programs: Programs
    backend_port: int
    tls_backend_port: int
    _runs: int = 0

    def fresh_directory(self, name: str) -> Path:
        self._runs += 1
        path = self.directory / f"{self._runs}-{name}"
        path.mkdir()
        return path


@dataclass(frozen=True)
class Arrangement:
    """How a proxy is started: workers, the clients it must be able to hold, and whether the CPUs are told apart."""

    workers: int = 1
    connections: int = 64
    is_pinned: bool = True
    front: Front = Front.HTTP
    is_backend_h2: bool = False
    """The backend is spoken to in HTTP/2 over TLS, else in HTTP/1.1 in cleartext."""


@dataclass
class Running:
    """A proxy that serves, with its collector when it is traced."""

    peer: RunningPeer
    destination: Destination
    collector: Collector | None

    def load(self, load: Load) -> LoadResult:
        """Runs the load to its end."""
        with load.start(self.destination) as child:
            return load.result(child)

    def reading(self) -> TreeReading:
        return TreeReading.take(self.peer.pid)


@contextlib.contextmanager
def running(bench: Bench, peer: Peer, arrangement: Arrangement, needle: str | None = None) -> Iterator[Running]:
    directory = bench.fresh_directory(peer.name)
    proxy_cpu = bench.placement.proxy_cpu if arrangement.is_pinned else None
    load_cpu = bench.placement.load_cpu if arrangement.is_pinned else None
    with contextlib.ExitStack() as stack:
        collector = None
        if peer.is_traced:
            collector = stack.enter_context(Collector(bench.programs.sink, directory, load_cpu, needle))
        is_tls = arrangement.front is Front.HTTPS
        setting = Setting(
            directory, free_port(), bench.tls_backend_port if arrangement.is_backend_h2 else bench.backend_port,
            arrangement.workers, arrangement.connections, bench.programs, collector.port if collector else None,
            arrangement.front, certificate(bench.directory) if is_tls else None, arrangement.is_backend_h2)
        proxy = stack.enter_context(RunningPeer(peer, setting, proxy_cpu))
        yield Running(proxy, Destination(
            setting.port, directory, load_cpu, bench.programs.pace, bench.programs.handshakes, is_tls), collector)


# CPU time and latency


@dataclass(frozen=True)
class LoadRun:
    """One load on one proxy. Times of the proxy and of the exporter are for the whole run."""

    result: LoadResult
    proxy: CpuTime
    exporter: CpuTime
    busy_share: float
    """CPU time of the tree by wall time while the load ran: 1 is one CPU fully used."""
    notes: tuple[str, ...] = ()

    def us_per_request(self, spent: CpuTime) -> float:
        return spent.total_ns / 1000 / self.result.succeeded

    @property
    def total_us(self) -> float:
        return self.us_per_request(self.proxy + self.exporter)


@dataclass
class LoadRuns:
    """All rounds of a case: for each peer one run a round, in the order of the rounds."""

    by_peer: dict[str, list[LoadRun]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    """Peers that could not be measured, and why."""

    def drop(self, peer: str, reason: str) -> None:
        """Takes the peer out with all its rounds, since a ratio needs every round of both sides."""
        self.by_peer.pop(peer)
        self.dropped[peer] = reason

    def best_competitor(self) -> str | None:
        """The cheapest of the other proxies."""
        present = [name for name in COMPETITORS if name in self.by_peer]
        return min(present, key=lambda name: self.median(name, lambda run: run.total_us), default=None)

    def median(self, peer: str, value: Callable[[LoadRun], float]) -> float:
        return statistics.median(value(run) for run in self.by_peer[peer])

    def ratio(self, peer: str, other: str) -> float | None:
        """Median of the rounds' ratios of CPU time per request; a slow spell of the machine hits both sides of one."""
        if peer not in self.by_peer or other not in self.by_peer:
            return None
        pairs = zip(self.by_peer[peer], self.by_peer[other], strict=True)
        return statistics.median(own.total_us / theirs.total_us for own, theirs in pairs)

    def spread(self, peer: str) -> float:
        """Distance of the dearest round from the cheapest, as a share of the median."""
        totals = [run.total_us for run in self.by_peer[peer]]
        return (max(totals) - min(totals)) / statistics.median(totals)

    def failed(self, peer: str) -> int:
        return sum(run.result.failed for run in self.by_peer[peer])


def run_load(bench: Bench, peer: Peer, arrangement: Arrangement, load: Load) -> LoadRun:
    with running(bench, peer, arrangement) as proxy:
        proxy.load(load.warm_up())
        if peer.is_traced:
            await_exporter(proxy)
        before, foreign_before = proxy.reading(), foreign_seconds()
        result = proxy.load(load)
        loaded, foreign_after = proxy.reading(), foreign_seconds()
        settled = await_exporter(proxy) if peer.is_traced else loaded
        received = proxy.collector.finish() if proxy.collector else None
    spent_under_load = sum(loaded.since(before), CpuTime())
    foreign = max(0, foreign_after - foreign_before) / result.seconds / (os.cpu_count() or 1)
    return LoadRun(
        result, *settled.since(before), spent_under_load.total_ns / 1e9 / result.seconds,
        run_notes(settled.has_lost(before), foreign, received, result.tls))


def run_notes(has_lost_process: bool, foreign_share: float, received: Received | None, tls: str) -> tuple[str, ...]:
    notes = []
    if has_lost_process:
        notes.append("a process ended during the run, its CPU time is missing")
    if foreign_share > FOREIGN_SHARE_NOTED:
        notes.append(f"other processes used {foreign_share:.0%} of the machine")
    if received is not None and received.posts == 0:
        notes.append("the collector received nothing, so nothing was traced")
    if tls not in USUAL_TLS:
        notes.append(f"spoke {tls}, which the others did not")
    return tuple(notes)


def foreign_seconds() -> float:
    """CPU time so far of all that this bench did not start; only differences mean something."""
    living = TreeReading.take(os.getpid()).processes
    own_ns = sum(reading.run_ns for pid, reading in living.items() if pid != os.getpid())
    return busy_seconds() - reaped_seconds() - own_ns / 1e9


def await_exporter(proxy: Running) -> TreeReading:
    """Lets the exporter send what still waits, since that work belongs to the requests before."""
    deadline = time.monotonic() + EXPORTER_TIMEOUT_SECONDS
    previous = proxy.reading()
    while time.monotonic() < deadline:
        time.sleep(EXPORTER_LOOK_SECONDS)
        present = proxy.reading()
        _, exporter = present.since(previous)
        if exporter.total_ns < EXPORTER_QUIET_NS:
            return present
        previous = present
    raise BenchError(f"the exporter of {proxy.peer.name} was still busy {EXPORTER_TIMEOUT_SECONDS} s after the load")


# Memory


@dataclass(frozen=True)
class MemoryRun:
    """Memory of one proxy through its stations."""

    connections: int
    connections_open: int
    """How many of them the proxy still held when it was measured."""
    idle: TreeMemory
    with_idle_connections: TreeMemory
    under_load: TreeMemory
    after_load: TreeMemory
    failed: int

    @property
    def bytes_per_connection(self) -> float:
        """Growth of the proxy without its exporter."""
        return (self.with_idle_connections.proxy_bytes - self.idle.proxy_bytes) / self.connections


def run_memory(bench: Bench, peer: Peer, arrangement: Arrangement, idle_connections: int, load: Load) -> MemoryRun:
    with running(bench, peer, arrangement) as proxy:
        idle = settled_memory(proxy)
        with IdleConnections(proxy.peer.port, idle_connections, proxy.destination.is_tls, is_h2(load)) as held:
            with_connections = settled_memory(proxy)
            still_open = held.count_open()
        with load.start(proxy.destination) as child:
            under_load = highest_memory(proxy, child.has_ended)
            result = load.result(child)
        return MemoryRun(
            idle_connections, still_open, idle, with_connections, under_load, settled_memory(proxy), result.failed)


def is_h2(load: Load) -> bool:
    return isinstance(load, FullLoad) and load.streams > 0


def settled_memory(proxy: Running) -> TreeMemory:
    time.sleep(MEMORY_SETTLE_SECONDS)
    return TreeMemory.take(proxy.peer.pid)


def highest_memory(proxy: Running, has_ended: Callable[[], bool]) -> TreeMemory:
    highest = TreeMemory.take(proxy.peer.pid)
    while not has_ended():
        time.sleep(0.2)
        highest = max(highest, TreeMemory.take(proxy.peer.pid), key=lambda memory: memory.total_bytes)
    return highest


# Delivery of traces


@dataclass(frozen=True)
class DeliveryRun:
    """What of the traces reached the collector while the proxy's CPU was full."""

    result: LoadResult
    received: Received
    busy_share: float
    log_lines: tuple[str, ...]
    """What the proxy itself said about traces that it lost."""

    @property
    def trees_missing(self) -> int:
        """Below zero when trees came twice. The request that found the proxy ready was traced too."""
        return self.result.requests + 1 - self.received.matches


def run_delivery(bench: Bench, peer: Peer, arrangement: Arrangement, load: Load) -> DeliveryRun:
    with running(bench, peer, arrangement, needle=ROOT_SPAN_NAME) as proxy:
        before = proxy.reading()
        result = proxy.load(load)
        busy = sum(proxy.reading().since(before), CpuTime()).total_ns / 1e9 / result.seconds
        await_exporter(proxy)
        proxy.peer.stop()
        received = proxy.collector.finish() if proxy.collector else Received(0, 0, 0)
        log_lines = [line for line in proxy.peer.output().splitlines() if "drop" in line or "lost" in line]
    return DeliveryRun(result, received, busy, tuple(log_lines))


# All together


@dataclass
class Results:
    """What a run of the suite has measured, by the name of the case; the rest of it by the name of the proxy."""

    loads: dict[str, LoadRuns] = field(default_factory=dict)
    memory: dict[str, dict[str, MemoryRun]] = field(default_factory=dict)
    delivery: dict[str, DeliveryRun] = field(default_factory=dict)
