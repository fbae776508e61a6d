"""Certificates for tests, made by the openssl command when a test first asks for one."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_EC = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")
_RSA = ("rsa:2048",)


@dataclass(frozen=True)
class Certificate:
    """Paths of a certificate and its key."""

    path: Path
    key: Path

    @property
    def server_flags(self) -> list[str]:
        return ["--tls-cert", str(self.path), "--tls-key", str(self.key)]

    @property
    def upstream_flags(self) -> list[str]:
        return ["--upstream-cert", str(self.path), "--upstream-key", str(self.key)]


class Authority:
    """A CA of its own; `issue` signs certificates with it."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.certificate = self._make(name, None, [], _EC, days=2)
        self.path = self.certificate.path

    def issue(self, *names: str, rsa: bool = False, days: int = 2, file: str = "") -> Certificate:
        """
        Signs a certificate for `names`, such as DNS:a.test or IP:127.0.0.1. With `days` -1 it has expired.
        """
        return self._make(file or _file_name(names, rsa, days), self.certificate, names, _RSA if rsa else _EC, days)

    def self_signed(self, *names: str) -> Certificate:
        return self._make("self_signed", None, names, _EC, days=2)

    def staple(self, certificate: Certificate) -> Path:
        """An OCSP response, DER, that says that `certificate` is good."""
        serial = _openssl("x509", "-in", certificate.path, "-noout", "-serial").strip().removeprefix("serial=")
        index = self._directory / "index.txt"
        index.write_text(f"V\t301231235959Z\t\t{serial}\tunknown\t/CN=any\n")
        response = self._directory / "staple.der"
        ca = ["-CA", self.path, "-rsigner", self.path, "-rkey", self.certificate.key]
        request = self._directory / "request.der"
        _openssl("ocsp", "-issuer", self.path, "-cert", certificate.path, "-no_nonce", "-reqout", request)
        _openssl("ocsp", "-index", index, *ca, "-reqin", request, "-respout", response, "-ndays", "1")
        return response

    def _make(
        self, name: str, signer: Certificate | None, names: list[str] | tuple[str, ...], key: tuple[str, ...], days: int
    ) -> Certificate:
        base = self._directory / name
        made = Certificate(base.with_suffix(".pem"), base.with_suffix(".key"))
        request, extensions = base.with_suffix(".csr"), base.with_suffix(".ext")
        _openssl("req", "-newkey", *key, "-nodes", "-keyout", made.key, "-out", request, "-subj", f"/CN={name}")
        lines = [f"basicConstraints=critical,CA:{'FALSE' if signer else 'TRUE'}"]
        lines += [f"subjectAltName={','.join(names)}"] if names else []
        extensions.write_text("\n".join(lines) + "\n")
        signature = ["-CA", signer.path, "-CAkey", signer.key] if signer else ["-signkey", made.key]
        output = ["-days", str(days), "-extfile", extensions, "-out", made.path]
        _openssl("x509", "-req", "-in", request, *signature, *output)
        return made


def _file_name(names: tuple[str, ...], rsa: bool, days: int) -> str:
    text = "_".join([*names, "rsa" if rsa else "ec", str(days)])
    return "".join(c if c.isalnum() else "_" for c in text)[:60]


def _openssl(*arguments: object) -> str:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"openssl {arguments}: {done.stderr}"
    return done.stdout
