"""Results as Markdown tables with aligned columns, which read as well on a terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from perf.measure import DeliveryRun, LoadRun, LoadRuns, MemoryRun, Results
from perf.peers import COMPETITORS, OURS, PEERS, RELAY, TRACED
from perf.processes import CpuTime, TreeMemory
from perf.targets import Verdict

MIB = 1024 * 1024
ABSENT = "–"
OTHERS_TRACED = [name for name, peer in PEERS.items() if peer.is_traced and name != TRACED]
SUMMARY_ORDER = [OURS, TRACED, *COMPETITORS, *OTHERS_TRACED]


@dataclass
class Section:
    """A heading, a table whose first column is text and the others numbers, and remarks below it."""

    title: str
    headers: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """What could not be measured, and why."""

    def render(self) -> str:
        parts = [f"## {self.title}"]
        if self.rows:
            parts += ["", *table(self.headers, self.rows)]
        failures = [f"{name} was NOT MEASURED: {indented(reason)}" for name, reason in self.failures.items()]
        if remarks := failures + self.notes:
            parts += ["", *(f"- {remark}" for remark in remarks)]
        return "\n".join(parts) + "\n"


def indented(text: str) -> str:
    return text.strip().replace("\n", "\n  ")


def table(headers: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in [headers, *rows]) for column in range(len(headers))]

    def line(cells: list[str]) -> str:
        numbers = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join([cells[0].ljust(widths[0]), *numbers])} |"

    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    return [line(headers), line(rule), *(line(row) for row in rows)]


def number(value: float) -> str:
    """Three significant digits or so, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 20 else f"{value:.2f}"


def ratio(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.2f}"


Median = Callable[[Callable[[LoadRun], float]], float]
Cells = Callable[[LoadRuns, str], list[str]]


def cpu_section(title: str, runs: LoadRuns) -> Section:
    headers = [
        "proxy", "CPU µs/req", *ratio_headers(runs), "user", "system", "exporter", "spread", "req/s", "CPU busy", "failed"]
    return load_section(title, headers, runs, cpu_cells)


def load_section(title: str, headers: list[str], runs: LoadRuns, cells: Cells) -> Section:
    rows = [[peer, *cells(runs, peer)] for peer in runs.by_peer]
    return Section(title, headers, rows, load_notes(runs), runs.dropped)


def references(runs: LoadRuns) -> list[str]:
    """The proxies that all others of a table are compared with."""
    return [name for name in (RELAY, "nginx") if name in runs.by_peer]


def ratio_headers(runs: LoadRuns) -> list[str]:
    return [*(f"× {name}" for name in references(runs)), "× best"]


def median_of(runs: LoadRuns, peer: str) -> Median:
    return lambda value: runs.median(peer, value)


def cost_cells(runs: LoadRuns, peer: str) -> list[str]:
    """CPU time of a request, and its ratios to those of others."""
    best = runs.best_competitor()
    return [
        number(runs.median(peer, lambda run: run.total_us)),
        *(ratio(runs.ratio(peer, name)) for name in references(runs)),
        ratio(runs.ratio(peer, best) if best else None),
    ]


def share_cells(runs: LoadRuns, peer: str) -> list[str]:
    """Where the CPU time went, and how far the rounds lie apart."""
    median = median_of(runs, peer)
    exporter_us = median(lambda run: run.us_per_request(run.exporter))
    return [
        number(median(lambda run: run.us_per_request(CpuTime(user_ns=run.proxy.user_ns)))),
        number(median(lambda run: run.us_per_request(CpuTime(system_ns=run.proxy.system_ns)))),
        number(exporter_us) if exporter_us else ABSENT,
        f"{runs.spread(peer):.0%}" if len(runs.by_peer[peer]) > 1 else ABSENT,
    ]


def cpu_cells(runs: LoadRuns, peer: str) -> list[str]:
    median = median_of(runs, peer)
    return [
        *cost_cells(runs, peer), *share_cells(runs, peer),
        number(median(lambda run: run.result.succeeded_per_second)),
        f"{median(lambda run: run.busy_share):.0%}",
        str(runs.failed(peer)),
    ]


def handshake_section(title: str, runs: LoadRuns) -> Section:
    headers = ["proxy", "CPU µs/conn", *ratio_headers(runs), "user", "system", "exporter", "spread", "conn/CPU s",
               "CPU busy", "resumed", "failed"]
    return load_section(title, headers, runs, handshake_cells)


def handshake_cells(runs: LoadRuns, peer: str) -> list[str]:
    median = median_of(runs, peer)
    rounds = runs.by_peer[peer]
    return [
        *cost_cells(runs, peer), *share_cells(runs, peer),
        number(median(lambda run: 1e6 / run.total_us)),
        f"{median(lambda run: run.busy_share):.0%}",
        f"{sum(run.result.resumed for run in rounds) / sum(run.result.succeeded for run in rounds):.1%}",
        str(runs.failed(peer)),
    ]


def latency_section(title: str, runs: LoadRuns) -> Section:
    headers = ["proxy", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs/req", "req/s", "failed"]
    return load_section(title, headers, runs, latency_cells)


def latency_cells(runs: LoadRuns, peer: str) -> list[str]:
    return [
        number(runs.median(peer, lambda run: run.result.latency.p50_us)),
        number(runs.median(peer, lambda run: run.result.latency.p99_us)),
        number(runs.median(peer, lambda run: run.result.latency.p999_us)),
        number(runs.median(peer, lambda run: run.total_us)),
        number(runs.median(peer, lambda run: run.result.succeeded_per_second)),
        str(runs.failed(peer)),
    ]


def load_notes(runs: LoadRuns) -> list[str]:
    return [
        f"{peer}, round {index}: {note}"
        for peer, rounds in runs.by_peer.items()
        for index, run in enumerate(rounds, start=1)
        for note in run.notes
    ]


def memory_section(title: str, runs: dict[str, MemoryRun], failures: dict[str, str]) -> Section:
    headers = ["proxy, PSS in MiB", "idle", "idle connections", "B/connection", "under load", "after load", "held",
               "failed"]
    rows = [
        [peer, *(mebibytes(memory) for memory in (run.idle, run.with_idle_connections)),
         f"{run.bytes_per_connection:,.0f}", *(mebibytes(memory) for memory in (run.under_load, run.after_load)),
         f"{run.connections_open:,}/{run.connections:,}", str(run.failed)]
        for peer, run in runs.items()
    ]
    notes = ["\"a + b\" is the proxy + its exporter; B/connection is the proxy's growth."]
    return Section(title, headers, rows, notes, failures)


def mebibytes(memory: TreeMemory) -> str:
    proxy = f"{memory.proxy_bytes / MIB:.1f}"
    return f"{proxy} + {memory.exporter_bytes / MIB:.1f}" if memory.exporter_bytes else proxy


def delivery_section(title: str, runs: dict[str, DeliveryRun], failures: dict[str, str]) -> Section:
    headers = ["proxy", "requests", "traces received", "missing", "posts", "MiB", "B/trace", "CPU busy", "req/s",
               "failed"]
    rows = [delivery_row(peer, run) for peer, run in runs.items()]
    notes = [f"{peer} logged: {line}" for peer, run in runs.items() for line in run.log_lines]
    return Section(title, headers, rows, notes, failures)


def delivery_row(peer: str, run: DeliveryRun) -> list[str]:
    received = run.received
    return [
        peer, f"{run.result.requests + 1:,}", f"{received.matches:,}", str(run.trees_missing), f"{received.posts:,}",
        number(received.body_bytes / MIB), number(received.body_bytes / max(1, received.matches)),
        f"{run.busy_share:.0%}", number(run.result.succeeded_per_second), str(run.result.failed),
    ]


def failure_section(title: str, reason: str) -> Section:
    """Stands in the place of a case that could not be measured."""
    return Section(title, [], [], failures={"The case": reason})


def target_section(verdicts: list[Verdict]) -> Section:
    rows = [[verdict.target, verdict.limit, verdict.measured, "met" if verdict.is_met else "MISSED"]
            for verdict in verdicts]
    return Section("Targets", ["target", "limit", "measured", "verdict"], rows)


def summary_sections(results: Results, titles: dict[str, str]) -> list[Section]:
    """What most people want to know, in two tables; `titles` has the cases that belong there."""
    cpu = {
        titles[case]: {peer: runs.median(peer, lambda run: run.total_us) for peer in runs.by_peer}
        for case, runs in results.loads.items() if case in titles
    }
    memory = {
        titles[case]: {peer: run.bytes_per_connection for peer, run in runs.items()}
        for case, runs in results.memory.items()
    }
    tables = (("Summary. CPU time of a request or of a new connection, µs", cpu),
              ("Summary. Memory of an idle connection, bytes", memory))
    return [summary_section(title, values) for title, values in tables if values]


def summary_section(title: str, values: dict[str, dict[str, float]]) -> Section:
    present = [peer for peer in SUMMARY_ORDER if any(peer in by_peer for by_peer in values.values())]
    rows = [[case, *(number(by_peer[peer]) if peer in by_peer else ABSENT for peer in present)]
            for case, by_peer in values.items()]
    return Section(title, ["", *present], rows)


def heading(facts: list[tuple[str, str]], command: str, rounds: int) -> str:
    lines = [
        "# Benchmark results", "",
        f"Medians of {rounds} interleaved round{'s' if rounds > 1 else ''}; perf/README.md says how to read them.", "",
        *(f"- {name}: {value}" for name, value in facts),
        f"- Command: `{command}`",
    ]
    return "\n".join(lines) + "\n"
