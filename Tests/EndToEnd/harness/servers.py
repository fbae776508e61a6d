"""Real servers as backends: nghttpd, h2o and hypercorn. nginx has a file of its own."""

from __future__ import annotations

import getpass
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.balancer import free_port
from harness.certificates import Certificate
from harness.waiting import wait_until
from harness.wire import accepts


class ServerProcess:
    """A server in a process of its own, which stands behind `--backend` once it accepts."""

    def __init__(self, command: list[str], port: int, scheme: str, log: Path) -> None:
        self.port = port
        self._scheme = scheme
        with open(log, "wb") as output:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        wait_until(lambda: accepts(port), f"{command[0]} to accept")

    @property
    def address(self) -> str:
        """What follows `--backend`."""
        return f"{self._scheme}127.0.0.1:{self.port}"

    def close(self) -> None:
        """At once: hypercorn would take its time to be graceful, and nobody waits for its last words."""
        self._process.kill()
        self._process.wait(10)


class Nghttpd(ServerProcess):
    """HTTP/2 alone; what is posted comes back."""

    def __init__(self, directory: Path, files: Mapping[str, bytes], certificate: Certificate | None = None) -> None:
        root = _write(directory / "files", files)
        port = free_port()
        command = ["nghttpd", "--address=127.0.0.1", "--echo-upload", f"--htdocs={root}"]
        command += ["--no-tls"] if certificate is None else []
        command += [str(port), *([str(certificate.key), str(certificate.path)] if certificate else [])]
        super().__init__(command, port, "https://" if certificate else "h2c://", directory / "log")


_H2O_CONFIGURATION = """
user: {user}
num-threads: 1
error-log: {directory}/error.log
pid-file: {directory}/pid
hosts:
  default:
    listen:
      host: 127.0.0.1
      port: {port}{tls}
    paths:
      /:
        file.dir: {root}
      /upload:
        mruby.handler: |
          Proc.new do |env|
            body = env["rack.input"]
            [200, {{"content-type" => "application/octet-stream"}}, [body ? body.read : ""]]
          end
"""


class H2o(ServerProcess):
    """HTTP/1.1 and HTTP/2; what is posted to /upload comes back."""

    def __init__(
        self, directory: Path, files: Mapping[str, bytes], certificate: Certificate | None = None, scheme: str = ""
    ) -> None:
        root = _write(directory / "files", files)
        port = free_port()
        pair = f"\n      ssl: {{certificate-file: {certificate.path}, key-file: {certificate.key}, ocsp-update-interval: 0}}" if certificate else ""
        configuration = directory / "h2o.conf"
        values = {"directory": directory, "port": port, "tls": pair, "root": root, "user": getpass.getuser()}
        configuration.write_text(_H2O_CONFIGURATION.format(**values))
        super().__init__(["h2o", "-c", str(configuration)], port, scheme, directory / "log")


class Hypercorn(ServerProcess):
    """The Python server, HTTP/1.1 and HTTP/2, with the application of asgi_echo.py."""

    def __init__(
        self, directory: Path, files: Mapping[str, bytes], certificate: Certificate | None = None, scheme: str = ""
    ) -> None:
        root = _write(directory / "files", files)
        port = free_port()
        command = [sys.executable, str(Path(__file__).with_name("asgi_echo.py")), str(port), str(root)]
        command += [str(certificate.path), str(certificate.key)] if certificate else []
        super().__init__(command, port, scheme, directory / "log")


def _write(root: Path, files: Mapping[str, bytes]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / name).write_bytes(content)
    return root
