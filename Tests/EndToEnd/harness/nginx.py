"""nginx as a backend: a real server with its own ideas about keep-alive, chunks and caching."""

from __future__ import annotations

import os
import shutil
import subprocess
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
        listen 127.0.0.1:{port}{tls};
        root {directory}/files;
        location /small {{ return 200 "small\\n"; }}
        location /chunked {{ gzip on; gzip_min_length 0; gzip_types *; }}
        location /echo {{ proxy_pass http://127.0.0.1:{port}/discard; proxy_request_buffering off; }}
        location /discard {{ return 200 "discarded\\n"; }}
        location /moved {{ return 301 /small; }}
    }}
}}
"""


class Nginx:
    """nginx serving `files` (name to content), `/small`, `/moved`, and `/chunked/NAME` gzipped on the fly."""

    def __init__(self, directory: Path, files: dict[str, bytes], certificate: Certificate | None = None) -> None:
        executable = shutil.which("nginx") or "/usr/sbin/nginx"
        assert Path(executable).exists(), "nginx is not installed: apt-get install nginx-light"
        self.port = free_port()
        _write_files(directory, files)
        configuration = directory / "nginx.conf"
        tls = f" ssl; ssl_certificate {certificate.path}; ssl_certificate_key {certificate.key}" if certificate else ""
        self._scheme = "https://" if certificate else ""
        configuration.write_text(_CONFIGURATION.format(directory=directory, port=self.port, tls=tls))
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


def _write_files(directory: Path, files: dict[str, bytes]) -> None:
    for folder in ("files", "files/chunked"):
        os.makedirs(directory / folder, exist_ok=True)
    for name, content in files.items():
        (directory / "files" / name).write_bytes(content)
        (directory / "files" / "chunked" / name).write_bytes(content)
