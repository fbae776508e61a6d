"""nginx as a backend: a real server with its own ideas about keep-alive, chunks and caching."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from harness.balancer import free_port
from harness.certificates import Certificate
from harness.waiting import wait_until
from harness.wire import accepts

_CONFIGURATION = """
daemon off;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 100000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    client_max_body_size 0;
    server {{
        listen 127.0.0.1:{port}{options};
        root {directory}/files;
        location /small {{ return 200 "small\\n"; }}
        location /chunked {{ gzip on; gzip_min_length 0; gzip_types *; }}
        location /echo {{ proxy_pass http://unix:{directory}/inner:/; proxy_request_buffering off; }}
        location /upload {{ proxy_pass http://unix:{directory}/inner:/; }}
        location /moved {{ return 301 /small; }}
    }}
    server {{
        listen unix:{directory}/inner;
        return 200 "discarded\n";
    }}
}}
"""


class Nginx:
    """nginx serving `files` (name to content), `/small`, `/moved`, and `/chunked/NAME` gzipped on the fly.

    `/echo` may answer before it has the whole body, `/upload` does not.
    """

    def __init__(
        self,
        directory: Path,
        files: Mapping[str, bytes],
        certificate: Certificate | None = None,
        *,
        speaks_http2: bool = False,
    ) -> None:
        """With `speaks_http2` it agrees on h2 over TLS, and speaks nothing else without."""
        executable = shutil.which("nginx") or "/usr/sbin/nginx"
        assert Path(executable).exists(), "nginx is not installed: apt-get install nginx-light"
        self.port = free_port()
        _write_files(directory, files)
        configuration = directory / "nginx.conf"
        options = (" ssl" if certificate else "") + (" http2" if speaks_http2 else "")
        if certificate:
            options += f"; ssl_certificate {certificate.path}; ssl_certificate_key {certificate.key}"
        self._scheme = "https://" if certificate else "h2c://" if speaks_http2 else ""
        configuration.write_text(_CONFIGURATION.format(directory=directory, port=self.port, options=options))
        self._process = subprocess.Popen(
            [executable, "-c", str(configuration), "-e", str(directory / "error.log"), "-g", "user root;"],
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: accepts(self.port), "nginx to accept")

    @property
    def address(self) -> str:
        """What follows `--backend`."""
        return f"{self._scheme}127.0.0.1:{self.port}"

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


def _write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    for folder in ("files", "files/chunked"):
        os.makedirs(directory / folder, exist_ok=True)
    for name, content in files.items():
        (directory / "files" / name).write_bytes(content)
        (directory / "files" / "chunked" / name).write_bytes(content)
