"""What is soaked: the load balancer, and nginx and HAProxy under the same load, each with its own way to reload."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

from perf.machine import program
from perf.origin import certificate, free_port, write_nginx_configuration
from perf.processes import BenchError, Child, descendants, pss_bytes
from perf.soaking.crowd import Ports

SETTLE_TIMEOUT_SECONDS = 30
KEEP_ALIVE_MAX = 1_000_000_000


class Proxy(Child):
    """A started proxy that answers on `port`."""

    def await_ready(self) -> None:
        self.wait_until_serving(self.port)

    def reload(self) -> None:
        """Reloads gracefully and returns when the new processes serve."""
        raise NotImplementedError

    port: int

    @property
    def ports(self) -> Ports:
        return Ports(self.port)


class LoadBalancer(Proxy):
    """Ours, configured by a file, so that the number of workers can change."""

    TITLE = re.compile(r"load_balancer: worker (\d+)(?: \(generation (\d+)(, draining)?\))?")

    def __init__(self, binary: Path, directory: Path, backend_port: int, collector_port: int, workers: int) -> None:
        self.port, self._tls_port = free_port(), free_port()
        self._path = directory / "load_balancer.json"
        pem = str(certificate(directory))
        self._settings = {
            "listeners": [{"address": "127.0.0.1", "port": self.port}],
            "tls": {"port": self._tls_port, "certificates": [pem], "keys": [pem]},
            "backends": [f"127.0.0.1:{backend_port}"],
            "tracing": {"endpoint": f"http://127.0.0.1:{collector_port}"},
        }
        self.workers = workers
        self.resize(workers)
        super().__init__("load_balancer", [str(binary), "--config", str(self._path)], directory)

    @property
    def ports(self) -> Ports:
        return Ports(self.port, self._tls_port)

    def resize(self, workers: int) -> None:
        """Takes effect with the next reload."""
        self.workers = workers
        self._write(json.dumps(self._settings | {"workers": workers}))

    def _write(self, text: str) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(text)
        new.rename(self._path)

    def spoil_configuration(self) -> None:
        self._write('{ "workers": "many" ')

    def reload(self, number: signal.Signals = signal.SIGUSR2) -> None:
        before = set(self.worker_pids())
        os.kill(self.pid, number)
        self._await(lambda: self._has_settled(before), f"finish a reload by {number.name}")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def _has_settled(self, before: set[int]) -> bool:
        """All workers are new, and their number is right: the old ones have ended."""
        pids = set(self.worker_pids())
        return len(pids) == self.workers and not pids & before and self.exporter_count() == 1

    def await_all(self) -> None:
        """Every child is there, none twice."""
        self._await(lambda: len(self.worker_pids()) == self.workers and self.exporter_count() == 1, "have its children")

    def worker_pids(self) -> list[int]:
        return [pid for pid in self.children() if self.TITLE.match(title(pid))]

    def exporter_pid(self) -> int:
        return self._await(self._current_exporter, "have an exporter")

    def _current_exporter(self) -> int | None:
        pids = [pid for pid in self.children() if title(pid).startswith("load_balancer: exporter")]
        return max(pids, default=None)

    def exporter_count(self) -> int:
        return sum(title(pid).startswith("load_balancer: exporter") for pid in self.children())

    def children(self) -> list[int]:
        return descendants(self.pid)[1:]

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def master_rss_kib(self) -> int:
        found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        return int(found.group(1)) if found else 0

    def generation_pss_bytes(self) -> int:
        return sum(pss_bytes(pid) for pid in self.children())

    def complaint_lines(self) -> list[str]:
        """Lines of the log that tell of trouble nobody caused on purpose."""
        return [line for line in self.output().splitlines() if "level=error" in line or "level=critical" in line]

    def _await(self, condition, what: str):
        deadline = time.monotonic() + SETTLE_TIMEOUT_SECONDS
        while not (value := condition()):
            if time.monotonic() > deadline:
                titles = [title(pid) for pid in self.children()]
                raise BenchError(f"the load balancer did not {what}; its children: {titles}; it said:\n{self.tail()}")
            time.sleep(0.02)
        return value


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


NGINX_PROXY = """\
    upstream backend {{
        server 127.0.0.1:{backend_port};
        keepalive 256;
    }}
    server {{
        listen 127.0.0.1:{port} reuseport backlog=4096;
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
"""


class Nginx(Proxy):
    """Reloaded by SIGHUP; the old workers close idle connections at once."""

    def __init__(self, directory: Path, backend_port: int, workers: int) -> None:
        self.port = free_port()
        body = NGINX_PROXY.format(port=self.port, backend_port=backend_port)
        path = write_nginx_configuration(directory, workers, connections=4096, body=body)
        super().__init__("nginx", [program("nginx"), "-p", str(directory), "-c", str(path)], directory)

    def reload(self) -> None:
        os.kill(self.pid, signal.SIGHUP)
        time.sleep(1)


HAPROXY_CONFIGURATION = """\
global
    nbthread {workers}
    stats socket {directory}/socket level admin expose-fd listeners
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    option forwardfor
listen proxy
    bind 127.0.0.1:{port} backlog 4096
    server backend 127.0.0.1:{backend_port}
"""


class HAProxy(Proxy):
    """In master-worker mode, reloaded by SIGUSR2; listeners are handed over."""

    def __init__(self, directory: Path, backend_port: int, workers: int) -> None:
        self.port = free_port()
        path = directory / "haproxy.cfg"
        path.write_text(HAPROXY_CONFIGURATION.format(
            workers=workers, directory=directory, port=self.port, backend_port=backend_port))
        super().__init__("haproxy", [program("haproxy"), "-W", "-db", "-f", str(path)], directory)

    def reload(self) -> None:
        os.kill(self.pid, signal.SIGUSR2)
        time.sleep(1)
