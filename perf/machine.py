"""What the machine offers: CPUs to bind to, installed programs, and the facts that a result needs to be read."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from perf.processes import CLOCK_TICKS_PER_SECOND, BenchError

# Program to the Debian package that has it. Without these nothing can be measured; other proxies are optional.
NEEDED_PROGRAMS = {
    "cc": "gcc", "h2load": "nghttp2-client", "nginx": "nginx", "openssl": "openssl", "taskset": "util-linux",
}
DESCRIPTORS_WANTED = 20_000
PYTHON_ENVIRONMENT = Path(__file__).resolve().parent.parent / ".venv/bin"


def find_program(name: str) -> str | None:
    """Looks in the sbin folders too, which an ordinary user's PATH lacks, and in the project's Python environment."""
    return shutil.which(name) or shutil.which(name, path=f"/usr/local/sbin:/usr/sbin:/sbin:{PYTHON_ENVIRONMENT}")


def program(name: str) -> str:
    """The path of an installed program."""
    path = find_program(name)
    if path is None:
        raise BenchError(f"{name} is not installed")
    return path


def require_programs() -> None:
    missing = {name: package for name, package in NEEDED_PROGRAMS.items() if not find_program(name)}
    if missing:
        raise BenchError(
            f"missing: {', '.join(missing)}. Install with: apt-get install {' '.join(sorted(missing.values()))}")


def raise_descriptor_limit() -> None:
    """2,048 connections cost a proxy two descriptors each, 5,000 idle ones cost this process one each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS_WANTED:
        raise BenchError(f"the limit of open files is {hard}; the bench needs {DESCRIPTORS_WANTED} (see ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS_WANTED, hard))


@dataclass(frozen=True)
class Placement:
    """The CPU for the proxy, and the one for load, backend and collector."""

    proxy_cpu: int
    load_cpu: int

    @staticmethod
    def choose() -> Placement:
        """Takes two cores, not two threads of one core where that can be had."""
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) < 2:
            raise BenchError("the bench needs two CPUs: one for the proxy and one for the load")
        siblings = thread_siblings(cpus[0])
        others = [cpu for cpu in cpus if cpu not in siblings] or cpus[1:]
        return Placement(cpus[0], others[0])


def thread_siblings(cpu: int) -> set[int]:
    """The CPUs that are threads of the same core, `cpu` included."""
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except FileNotFoundError:
        return {cpu}
    siblings: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        siblings.update(range(int(first), int(last or first) + 1))
    return siblings


def busy_seconds() -> float:
    """CPU time that all CPUs together have spent on anything (/proc/stat), stolen time included."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle, iowait = fields[3], fields[4]
    return (sum(fields) - idle - iowait) / CLOCK_TICKS_PER_SECOND


def reaped_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def facts(placement: Placement) -> list[tuple[str, str]]:
    cpu_info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", cpu_info, re.MULTILINE)
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return [
        ("CPU", f"{model.group(1) if model else platform.machine()}, {len(os.sched_getaffinity(0))} CPUs available"),
        ("Memory", f"{memory_bytes / 2**30:.1f} GiB"),
        ("Kernel", f"{platform.system()} {platform.release()}"),
        ("Where bound", f"proxy on CPU {placement.proxy_cpu}; load, backend and collector on CPU {placement.load_cpu}"),
        ("Load tool", version("h2load", "--version")),
    ]


def version(name: str, flag: str) -> str:
    """The first line that the program prints about its version."""
    path = find_program(name)
    if path is None:
        return "not installed"
    result = subprocess.run([path, flag], capture_output=True, text=True, timeout=10)
    lines = (result.stdout + result.stderr).strip().splitlines()
    return lines[0].replace(path, name).removesuffix(" - https://haproxy.org/") if lines else "unknown"
