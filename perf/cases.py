"""What is measured: the cases, with their loads and the proxies that take part in each."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from perf import report
from perf.load import FullLoad, Load, PacedLoad
from perf.measure import Arrangement, Bench, LoadRuns, Results, run_delivery, run_load, run_memory
from perf.peers import OURS, PEERS, TRACED, Peer

BASE_REQUESTS = 300_000
"""Requests of a run of the 1 KiB cases; every other load keeps its proportion to it."""
IDLE_CONNECTIONS = 5_000
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
                progress(f"{self.name}: round {number} of {effort.rounds}, {peer.name}")
                runs.by_peer[peer.name].append(run_load(bench, peer, self.arrangement, scaled(self.load, effort)))
        results.loads[self.name] = runs
        section = report.latency_section if isinstance(self.load, PacedLoad) else report.cpu_section
        return section(self.heading, runs)


class MemoryCase(Case):
    """Memory at rest, with idle connections, and under load; once, since it hardly varies."""

    def run(self, bench: Bench, peers: list[Peer], effort: Effort, results: Results) -> report.Section:
        for peer in peers:
            progress(f"{self.name}: {peer.name}")
            results.memory[peer.name] = run_memory(
                bench, peer, self.arrangement, IDLE_CONNECTIONS, scaled(self.load, effort))
        return report.memory_section(self.heading, results.memory)


class DeliveryCase(Case):
    """Whether every request's trace arrives while one worker is busy without a pause."""

    def run(self, bench: Bench, peers: list[Peer], effort: Effort, results: Results) -> report.Section:
        for peer in peers:
            progress(f"{self.name}: {peer.name}")
            results.delivery[peer.name] = run_delivery(bench, peer, self.arrangement, scaled(self.load, effort))
        return report.delivery_section(self.heading, results.delivery)


def scaled(load: Load, effort: Effort) -> Load:
    return replace(load, requests=max(10 * load.connections, int(load.requests * effort.scale)))


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


COMPARED = ("relay", "nginx", "haproxy", OURS, TRACED)
TLS_PEERS = ("nginx", "haproxy", "h2o", "nghttpx", OURS, TRACED)
BODY_PEERS = ("relay", "nginx", "haproxy", "h2o", OURS)

CASES: dict[str, LoadCase | MemoryCase | DeliveryCase] = {
    case.name: case
    for case in (
        LoadCase("1k", "1 KiB responses, 64 connections, one worker", COMPARED,
                 FullLoad(64, BASE_REQUESTS), Arrangement()),
        LoadCase("workers", "1 KiB responses, 64 connections, two workers, nothing bound to a CPU", COMPARED,
                 FullLoad(64, BASE_REQUESTS), Arrangement(workers=2, is_pinned=False)),
        LoadCase("64k", "64 KiB responses, 64 connections, one worker", BODY_PEERS,
                 FullLoad(64, BASE_REQUESTS // 3, "/64k"), Arrangement()),
        LoadCase("10m", "10 MiB responses, 8 connections, one worker", BODY_PEERS,
                 FullLoad(8, BASE_REQUESTS // 200, "/10m"), Arrangement(connections=8)),
        LoadCase("c256", "1 KiB responses, 256 connections, one worker", COMPARED,
                 FullLoad(256, BASE_REQUESTS * 2 // 3), Arrangement(connections=256)),
        LoadCase("c2048", "1 KiB responses, 2,048 connections, one worker", COMPARED,
                 FullLoad(2048, BASE_REQUESTS * 2 // 3), Arrangement(connections=2048)),
        LoadCase("tls-h1", "1 KiB responses over TLS, HTTP/1.1, 16 connections, one worker", TLS_PEERS,
                 FullLoad(16, BASE_REQUESTS // 2), Arrangement(connections=16, is_tls=True)),
        LoadCase("tls-h2", "1 KiB responses over TLS, HTTP/2, 16 connections with 16 streams each, one worker", TLS_PEERS,
                 FullLoad(16, BASE_REQUESTS // 2, streams=16), Arrangement(connections=256, is_tls=True)),
        LoadCase("latency", "Latency at 2,000 requests a second over 16 connections, 1 KiB responses, one worker",
                 ("relay", "nghttpx", "nginx", "haproxy", OURS, TRACED),
                 PacedLoad(16, 2000 * LATENCY_SECONDS, rate=2000), Arrangement(connections=16)),
        DeliveryCase("delivery", "Traces delivered at full load, one worker", (TRACED,),
                     FullLoad(64, BASE_REQUESTS), Arrangement()),
        MemoryCase("memory", "Memory, one worker", ("nginx", "haproxy", "nghttpx", OURS, TRACED),
                   FullLoad(64, BASE_REQUESTS // 2), Arrangement(connections=IDLE_CONNECTIONS + 100)),
    )
}


def chosen_peers(case: Case, usable: set[str]) -> list[Peer]:
    return [PEERS[name] for name in case.peers if name in usable]
