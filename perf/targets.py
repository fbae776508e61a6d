"""What the load balancer has to reach, judged from the results of one run.

Every target is a ratio against a proxy that ran in the same rounds, or a number that does not depend on the machine,
except the exporter's cost, which is given for the reference machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from perf.measure import Results
from perf.peers import COMPETITORS, OURS, TRACED

RELAY_RATIO_MAX = 1.15
NGINX_RATIO_MAX = 0.80
TRACED_NGINX_RATIO_MAX = 0.95
EXPORTER_US_MAX = 2.5
IDLE_CONNECTION_BYTES_MAX = 1024
PARITY = 1.0
TRACED_BEST_RATIO_MAX = 1.25
SECURE_CASES = ("h2c-h1", "tls-h1", "tls-h2", "tls-h2-h2", "tls-h2-64k", "tls-h1-10m", "tls-h2-10m")
HANDSHAKE_CASES = ("tls13-full", "tls13-resumed", "tls12-full", "tls12-resumed")


@dataclass(frozen=True)
class Verdict:
    """One target and what was measured; both as text, ready to print."""

    target: str
    limit: str
    measured: str
    is_met: bool


def judge(results: Results) -> list[Verdict]:
    """Verdicts on all targets for which the run has the numbers."""
    return [
        *ratio_verdicts(results), *exporter_verdict(results), *failure_verdicts(results), *delivery_verdicts(results),
        *memory_verdict(results), *best_of_verdict(results, "10m", OURS, PARITY), *latency_verdict(results),
        *secure_verdicts(results), *handshake_verdicts(results), *secure_memory_verdicts(results),
    ]


def ratio_verdicts(results: Results) -> list[Verdict]:
    wanted = [
        ("CPU a request, untraced, by relay", "1k", OURS, "relay", RELAY_RATIO_MAX),
        ("CPU a request, untraced, by nginx", "1k", OURS, "nginx", NGINX_RATIO_MAX),
        ("CPU a request, traced with exporter, by nginx untraced", "1k", TRACED, "nginx", TRACED_NGINX_RATIO_MAX),
        ("CPU a request, 64 KiB bodies, by HAProxy", "64k", OURS, "haproxy", PARITY),
        ("CPU a request, 2,048 connections, by nginx", "c2048", OURS, "nginx", PARITY),
    ]
    verdicts = []
    for target, case, peer, other, limit in wanted:
        runs = results.loads.get(case)
        ratio = runs.ratio(peer, other) if runs else None
        if ratio is not None:
            verdicts.append(Verdict(target, f"≤ {limit:.2f}", f"{ratio:.2f}", ratio <= limit))
    return verdicts


def exporter_verdict(results: Results) -> list[Verdict]:
    runs = results.loads.get("1k")
    if not runs or TRACED not in runs.by_peer:
        return []
    cost_us = runs.median(TRACED, lambda run: run.us_per_request(run.exporter))
    return [Verdict("Exporter's CPU a request", f"≤ {EXPORTER_US_MAX} µs", f"{cost_us:.2f} µs",
                    cost_us <= EXPORTER_US_MAX)]


def failure_verdicts(results: Results) -> list[Verdict]:
    failed = [
        runs.failed(peer) for runs in results.loads.values() for peer in (OURS, TRACED) if peer in runs.by_peer
    ]
    failed += [run.result.failed for run in results.delivery.values()]
    failed += [
        runs[peer].failed for runs in results.memory.values() for peer in (OURS, TRACED) if peer in runs
    ]
    return [Verdict("Failed requests in all cases", "0", str(sum(failed)), sum(failed) == 0)] if failed else []


def delivery_verdicts(results: Results) -> list[Verdict]:
    run = results.delivery.get(TRACED)
    if run is None:
        return []
    return [Verdict("Traces missing (below 0: doubled) at full load", "0", str(run.trees_missing),
                    run.trees_missing == 0)]


def memory_verdict(results: Results) -> list[Verdict]:
    run = results.memory.get("memory", {}).get(OURS)
    if run is None:
        return []
    return [Verdict("Memory for an idle connection", f"≤ {IDLE_CONNECTION_BYTES_MAX} B",
                    f"{run.bytes_per_connection:.0f} B", run.bytes_per_connection <= IDLE_CONNECTION_BYTES_MAX)]


def best_of_verdict(results: Results, case: str, peer: str, limit: float) -> list[Verdict]:
    """CPU time by that of the cheapest other proxy, which does not trace."""
    runs = results.loads.get(case)
    best = runs.best_competitor() if runs else None
    ratio = runs.ratio(peer, best) if runs and best else None
    if ratio is None:
        return []
    target = f"CPU, {case}, {'traced' if peer == TRACED else 'untraced'}, by the best other proxy ({best})"
    return [Verdict(target, f"≤ {limit:.2f}", f"{ratio:.2f}", ratio <= limit)]


def secure_verdicts(results: Results) -> list[Verdict]:
    return [
        verdict for case in SECURE_CASES for peer, limit in ((OURS, PARITY), (TRACED, TRACED_BEST_RATIO_MAX))
        for verdict in best_of_verdict(results, case, peer, limit)
    ]


def handshake_verdicts(results: Results) -> list[Verdict]:
    """Against nginx, which has the same OpenSSL."""
    verdicts = []
    for case in HANDSHAKE_CASES:
        runs = results.loads.get(case)
        for peer, limit in ((OURS, PARITY), (TRACED, TRACED_BEST_RATIO_MAX)):
            ratio = runs.ratio(peer, "nginx") if runs else None
            if ratio is not None:
                target = f"CPU a connection, {case}, {'traced' if peer == TRACED else 'untraced'}, by nginx"
                verdicts.append(Verdict(target, f"≤ {limit:.2f}", f"{ratio:.2f}", ratio <= limit))
    return verdicts


def secure_memory_verdicts(results: Results) -> list[Verdict]:
    verdicts = []
    for case in ("memory-tls-h1", "memory-tls-h2"):
        runs = results.memory.get(case, {})
        others = {name: runs[name].bytes_per_connection for name in COMPETITORS if name in runs}
        if OURS in runs and others:
            best = min(others, key=others.__getitem__)
            own_bytes = runs[OURS].bytes_per_connection
            verdicts.append(Verdict(
                f"Memory for an idle connection, {case}, the best other proxy's ({best})", f"≤ {others[best]:,.0f} B",
                f"{own_bytes:,.0f} B", own_bytes <= others[best]))
    return verdicts


def latency_verdict(results: Results) -> list[Verdict]:
    runs = results.loads.get("latency")
    if not runs or OURS not in runs.by_peer or "nghttpx" not in runs.by_peer:
        return []
    own_us, limit_us = (runs.median(peer, lambda run: run.result.latency.p99_us) for peer in (OURS, "nghttpx"))
    return [Verdict("p99 latency at 2,000 requests a second, nghttpx's", f"≤ {limit_us:.0f} µs", f"{own_us:.0f} µs",
                    own_us <= limit_us)]
