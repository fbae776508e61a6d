"""The servers around a proxy under test: the backend that all of them use, and the collector of traces.

Both run on the CPU of the load, so that they never take time from the proxy.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from perf.machine import program
from perf.processes import BenchError, Child, Front

SOURCES = Path(__file__).resolve().parent
RESPONSE_BYTES = 1024
TLS13_CIPHER = "TLS_AES_128_GCM_SHA256"
"""Clients and the backend offer this one alone, so that all proxies encrypt alike."""
FILES = {"64k": 64 * 1024, "10m": 10 * 1024 * 1024}

# An nginx that starts without a system configuration and writes nothing outside its own directory. Used for the
# backend and for nginx as a proxy.
NGINX_FRAME = """\
daemon off;
{user}
worker_processes {workers};
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
{body}
}}
"""

BACKEND_BODY = """\
    sendfile on;
    tcp_nopush on;
    open_file_cache max=16;
    default_type application/octet-stream;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root {directory}/files;
        location = / {{ return 200 "{text}"; }}
    }}
    server {{
        listen 127.0.0.1:{tls_port} ssl http2 backlog=4096;
        ssl_certificate {certificate};
        ssl_certificate_key {certificate};
        ssl_protocols TLSv1.3;
        ssl_conf_command Ciphersuites {cipher};
        root {directory}/files;
        location = / {{ return 200 "{text}"; }}
    }}
"""


def certificate(directory: Path) -> Path:
    """One PEM file with a P-256 key and its certificate, made when it is first asked for."""
    path = directory / "tls.pem"
    if not path.exists():
        key = directory / "tls.key"
        subprocess.run(
            [program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "2", "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", directory / "tls.crt"],
            check=True, capture_output=True)
        path.write_bytes(key.read_bytes() + (directory / "tls.crt").read_bytes())
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_nginx_configuration(directory: Path, workers: int, connections: int, body: str) -> Path:
    """Returns the path of a configuration whose http block is `body`; `connections` counts both sides."""
    # Started by root, nginx would give its workers to a user who may not read the temporary directory.
    user = "user root;" if os.geteuid() == 0 else ""
    path = directory / "nginx.conf"
    path.write_text(NGINX_FRAME.format(
        user=user, workers=workers, connections=connections, directory=directory, body=body))
    return path


def compile_program(name: str, directory: Path, libraries: tuple[str, ...] = ()) -> Path:
    """Builds `name`.c of this folder into `directory`."""
    binary = directory / name
    command = ["cc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-o", str(binary), str(SOURCES / f"{name}.c"),
               *(f"-l{library}" for library in libraries)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise BenchError(f"cannot compile {name}.c (needs gcc, libc6-dev and libssl-dev):\n{result.stderr}")
    return binary


class Backend(Child):
    """An nginx that answers / with 1 KiB from memory, and /64k and /10m from files.

    On `port` it speaks HTTP/1.1 in cleartext, on `tls_port` HTTP/2 over TLS.
    """

    def __init__(self, directory: Path, cpu: int):
        directory.mkdir()
        files = directory / "files"
        files.mkdir()
        for name, size in FILES.items():
            (files / name).write_bytes(os.urandom(size))
        self.port, self.tls_port = free_port(), free_port()
        body = BACKEND_BODY.format(
            port=self.port, tls_port=self.tls_port, certificate=certificate(directory), cipher=TLS13_CIPHER,
            directory=directory, text="x" * RESPONSE_BYTES)
        path = write_nginx_configuration(directory, workers=1, connections=16384, body=body)
        super().__init__("backend", [program("nginx"), "-p", str(directory), "-c", str(path)], directory, cpu)

    def await_ready(self) -> None:
        self.wait_until_serving(self.port)
        self.wait_until_serving(self.tls_port, Front.HTTPS)


@dataclass(frozen=True)
class Received:
    """What reached the collector: posts, their bytes, and how often the needle stood in them."""

    posts: int
    body_bytes: int
    matches: int


class Collector(Child):
    """The sink of sink.c; it counts occurrences of `needle` when there is one, which costs it a copy and a search."""

    def __init__(self, binary: Path, directory: Path, cpu: int | None, needle: str | None = None):
        super().__init__("sink", [str(binary)] + ([needle] if needle else []), directory, cpu)

    def await_ready(self) -> None:
        self.port = self.printed_port()

    def finish(self) -> Received:
        """Ends the collector and returns its counts."""
        self.stop()
        counts = re.search(r"requests=(\d+) bytes=(\d+) matches=(\d+)", self.output())
        if counts is None:
            raise BenchError(f"the collector ended without its counts; it said:\n{self.tail()}")
        return Received(*map(int, counts.groups()))
