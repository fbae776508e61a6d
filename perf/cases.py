"""What is measured: the cases, with their loads and the proxies that take part in each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from perf import report
from perf.load import FullLoad, HandshakeLoad, Load, PacedLoad
from perf.measure import Arrangement, Bench, LoadRuns, Results, run_delivery, run_load, run_memory
from perf.peers import OURS, PEERS, RELAY, TRACED, Peer
from perf.processes import BenchError, Front

Result = TypeVar("Result")
BASE_REQUESTS = 300_000
"""Requests of a run of the 1 KiB cases; every other load keeps its proportion to it."""
IDLE_CONNECTIONS = 5_000
IDLE_TLS_CONNECTIONS = 2_000
HANDSHAKES = BASE_REQUESTS // 100
SECTIONS = {
    FullLoad: report.cpu_section, PacedLoad: report.latency_section, HandshakeLoad: report.handshake_section,
}
LATENCY_SECONDS = 6


@dataclass(frozen=True)
class Effort:
    """How much work a run of the suite does."""

    rounds: int
    scale: float
    """Factor on the requests of every load."""


@dataclass(frozen=True)
class Case:
    """One load on several proxies."""

    name: str
    title: str
    peers: tuple[str, ...]
    load: Load
    arrangement: Arrangement

    @property
    def heading(self) -> str:
        return f"{self.title} (`{self.name}`)"


class LoadCase(Case):
    """Interleaved rounds of one load: every peer once, then every peer again."""

    def run(self, bench: Bench, peers: list[Peer], effort: Effort, results: Results) -> report.Section:
        runs = LoadRuns({peer.name: [] for peer in peers})
        for number in range(1, effort.rounds + 1):
            for peer in peers:
                if peer.name not in runs.dropped:
                    progress(f"{self.name}: round {number} of {effort.rounds}, {peer.name}")
                    self._run_once(bench, peer, effort, runs)
        results.loads[self.name] = runs
        return SECTIONS[type(self.load)](self.heading, runs)

    def _run_once(self, bench: Bench, peer: Peer, effort: Effort, runs: LoadRuns) -> None:
        try:
            runs.by_peer[peer.name].append(run_load(bench, peer, self.arrangement, scaled(self.load, effort)))
        except BenchError as error:
            progress(f"{self.name}: {peer.name} is left out: {error}")
            runs.drop(peer.name, str(error))


@dataclass(frozen=True)
class MemoryCase(Case):
    """Memory at rest, with idle connections, and under load; once, since it hardly varies."""

    idle_connections: int

    def run(self, bench: Bench, peers: list[Peer], effort: Effort, results: Results) -> report.Section:
        load = scaled(self.load, effort)
        runs, failures = run_each(
            self.name, peers, lambda peer: run_memory(bench, peer, self.arrangement, self.idle_connections, load))
        results.memory[self.name] = runs
        return report.memory_section(self.heading, runs, failures)


class DeliveryCase(Case):
    """Whether every request's trace arrives while one worker is busy without a pause."""

    def run(self, bench: Bench, peers: list[Peer], effort: Effort, results: Results) -> report.Section:
        load = scaled(self.load, effort)
        results.delivery, failures = run_each(
            self.name, peers, lambda peer: run_delivery(bench, peer, self.arrangement, load))
        return report.delivery_section(self.heading, results.delivery, failures)


def run_each(
    case: str, peers: list[Peer], run: Callable[[Peer], Result]
) -> tuple[dict[str, Result], dict[str, str]]:
    """One run for each peer: (results, reasons of those that failed), both by the name of the peer."""
    results: dict[str, Result] = {}
    failures: dict[str, str] = {}
    for peer in peers:
        progress(f"{case}: {peer.name}")
        try:
            results[peer.name] = run(peer)
        except BenchError as error:
            progress(f"{case}: {peer.name} is left out: {error}")
            failures[peer.name] = str(error)
    return results, failures


def scaled(load: Load, effort: Effort) -> Load:
    return replace(load, requests=max(10 * load.connections, int(load.requests * effort.scale)))


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


COMPARED = (RELAY, "nginx", "haproxy", OURS, TRACED)
ENVOY = ("envoy", "envoy-traced")
"""The one that traces as well, in the cases that compare that. It costs three to five times what the others do."""
H2_PEERS = ("nginx", "haproxy", "h2o", "nghttpx", OURS, TRACED)
H2_AND_ENVOY = ("nginx", "haproxy", "h2o", "nghttpx", *ENVOY, OURS, TRACED)
# Neither nginx nor h2o speaks HTTP/2 to backends.
H2_TO_H2_PEERS = ("haproxy", "nghttpx", *ENVOY, OURS, TRACED)
BODY_PEERS = (RELAY, "nginx", "nginx-tuned", "haproxy", "h2o", OURS)
TLS_BODY_PEERS = ("nginx", "nginx-tuned", "haproxy", "h2o", "nghttpx", OURS, TRACED)
# TLS 1.2 is on its way out: those with the same OpenSSL and the most users will do.
TLS12_PEERS = ("nginx", "haproxy", OURS, TRACED)
H2C = Arrangement(connections=256, front=Front.H2C)
TLS_H1 = Arrangement(connections=16, front=Front.HTTPS)
TLS_H2 = Arrangement(connections=256, front=Front.HTTPS)
TLS_IDLE = Arrangement(connections=IDLE_TLS_CONNECTIONS + 300, front=Front.HTTPS)

Cases = tuple[LoadCase | MemoryCase | DeliveryCase, ...]


def plain_cases() -> Cases:
    """HTTP/1.1 in cleartext."""
    return (
        LoadCase("1k", "1 KiB responses, 64 connections, one worker", COMPARED,
                 FullLoad(64, BASE_REQUESTS), Arrangement()),
        LoadCase("workers", "1 KiB responses, 64 connections, two workers, nothing bound to a CPU", COMPARED,
                 FullLoad(64, BASE_REQUESTS), Arrangement(workers=2, is_pinned=False)),
        LoadCase("64k", "64 KiB responses, 64 connections, one worker", BODY_PEERS,
                 FullLoad(64, BASE_REQUESTS // 3, "/64k"), Arrangement()),
        LoadCase("10m", "10 MiB responses, 8 connections, one worker", BODY_PEERS,
                 FullLoad(8, BASE_REQUESTS // 400, "/10m"), Arrangement(connections=8)),
        LoadCase("c256", "1 KiB responses, 256 connections, one worker", COMPARED,
                 FullLoad(256, BASE_REQUESTS // 2), Arrangement(connections=256)),
        LoadCase("c2048", "1 KiB responses, 2,048 connections, one worker", COMPARED,
                 FullLoad(2048, BASE_REQUESTS // 2), Arrangement(connections=2048)),
    )


def secure_cases() -> Cases:
    """TLS and HTTP/2, on one worker."""
    one_kib = BASE_REQUESTS // 4
    return (
        LoadCase("h2c-h1", "1 KiB, HTTP/2 in cleartext, 16 connections × 16 streams; backend HTTP/1.1", H2_AND_ENVOY,
                 FullLoad(16, one_kib, streams=16), H2C),
        LoadCase("tls-h1", "1 KiB, HTTP/1.1 over TLS, 16 connections; backend HTTP/1.1", H2_PEERS,
                 FullLoad(16, one_kib), TLS_H1),
        LoadCase("tls-h2", "1 KiB, HTTP/2 over TLS, 16 connections × 16 streams; backend HTTP/1.1", H2_AND_ENVOY,
                 FullLoad(16, one_kib, streams=16), TLS_H2),
        LoadCase("tls-h2-h2", "1 KiB, HTTP/2 over TLS, 16 connections × 16 streams; backend HTTP/2 over TLS",
                 H2_TO_H2_PEERS, FullLoad(16, one_kib, streams=16), replace(TLS_H2, is_backend_h2=True)),
        LoadCase("tls-h2-64k", "64 KiB, HTTP/2 over TLS, 16 connections × 16 streams; backend HTTP/1.1", TLS_BODY_PEERS,
                 FullLoad(16, BASE_REQUESTS // 15, "/64k", streams=16), TLS_H2),
        LoadCase("tls-h1-10m", "10 MiB, HTTP/1.1 over TLS, 8 connections; backend HTTP/1.1", TLS_BODY_PEERS,
                 FullLoad(8, BASE_REQUESTS // 2000, "/10m"), replace(TLS_H1, connections=8)),
        LoadCase("tls-h2-10m", "10 MiB, HTTP/2 over TLS, 4 connections × 2 streams; backend HTTP/1.1", TLS_BODY_PEERS,
                 FullLoad(4, BASE_REQUESTS // 2000, "/10m", streams=2), replace(TLS_H2, connections=8)),
    )


def handshake_cases() -> Cases:
    """A TLS connection for each request."""
    def case(name: str, title: str, is_resuming: bool, version: str) -> LoadCase:
        peers = H2_PEERS if version == "1.3" else TLS12_PEERS
        return LoadCase(name, f"{title}, one request each, 16 at a time, one worker", peers,
                        HandshakeLoad(16, HANDSHAKES, is_resuming, version), TLS_H1)

    return (
        case("tls13-full", "New TLS 1.3 connections, full handshakes", False, "1.3"),
        case("tls13-resumed", "New TLS 1.3 connections, resumed sessions", True, "1.3"),
        case("tls12-full", "New TLS 1.2 connections, full handshakes", False, "1.2"),
        case("tls12-resumed", "New TLS 1.2 connections, resumed sessions", True, "1.2"),
    )


def other_cases() -> Cases:
    """What is not CPU time."""
    return (
        LoadCase("latency", "Latency at 2,000 requests a second over 16 connections, 1 KiB responses, one worker",
                 (RELAY, "nghttpx", "nginx", "haproxy", OURS, TRACED),
                 PacedLoad(16, 2000 * LATENCY_SECONDS, rate=2000), Arrangement(connections=16)),
        DeliveryCase("delivery", "Traces delivered at full load, one worker", (TRACED,),
                     FullLoad(64, BASE_REQUESTS), Arrangement()),
        MemoryCase("memory", "Memory, one worker", ("nginx", "haproxy", "nghttpx", OURS, TRACED),
                   FullLoad(64, BASE_REQUESTS // 2), Arrangement(connections=IDLE_CONNECTIONS + 100), IDLE_CONNECTIONS),
        MemoryCase("memory-tls-h1", "Memory with HTTP/1.1 over TLS, one worker", H2_PEERS,
                   FullLoad(16, BASE_REQUESTS // 10), TLS_IDLE, IDLE_TLS_CONNECTIONS),
        MemoryCase("memory-tls-h2", "Memory with HTTP/2 over TLS, one worker", H2_PEERS,
                   FullLoad(16, BASE_REQUESTS // 10, streams=16), TLS_IDLE, IDLE_TLS_CONNECTIONS),
    )


CASES = {case.name: case for case in (*plain_cases(), *secure_cases(), *handshake_cases(), *other_cases())}


def chosen_peers(case: Case, usable: set[str]) -> list[Peer]:
    return [PEERS[name] for name in case.peers if name in usable]
