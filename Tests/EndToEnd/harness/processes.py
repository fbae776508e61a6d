"""What /proc says about processes (proc(5)). Nothing here changes a process, but `reset_peak_rss`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_TCP_LISTEN = "0A"


@dataclass(frozen=True)
class Socket:
    """A line of /proc/net/tcp or tcp6."""

    local_port: int
    remote_port: int
    state: str
    inode: int

    @property
    def is_listening(self) -> bool:
        return self.state == _TCP_LISTEN


def is_alive(pid: int) -> bool:
    """Whether `pid` runs; a zombie does not."""
    return state(pid) not in (None, "Z", "X")


def state(pid: int) -> str | None:
    """The one-letter state, None when there is no such process."""
    fields = _stat(pid)
    return fields[0] if fields else None


def children(pid: int) -> list[int]:
    """Direct children, zombies included, oldest first."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and parent(int(entry.name)) == pid:
            found.append(int(entry.name))
    return sorted(found)


def parent(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def session(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[3]) if fields else None


def cpu_time_s(pid: int) -> float:
    """User and system time used so far."""
    fields = _stat(pid)
    assert fields, f"process {pid} is gone"
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def title(pid: int) -> str:
    """What ps shows as the command line; empty when the process is gone."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()


def reset_peak_rss(pid: int) -> None:
    """Makes `peak_rss_kib` start over from the present size."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_rss_kib(pid: int) -> int:
    return _status_kib(pid, "VmHWM")


def rss_kib(pid: int) -> int:
    return _status_kib(pid, "VmRSS")


def open_files(pid: int) -> dict[int, str]:
    """Descriptor number to what it refers to, such as "socket:[1234]"."""
    files = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            files[int(entry.name)] = os.readlink(entry)
        except FileNotFoundError:
            pass  # closed while we looked
    return files


def tcp_sockets(pid: int) -> list[Socket]:
    """The TCP sockets among the open files of `pid`."""
    inodes = {link[8:-1] for link in open_files(pid).values() if link.startswith("socket:[")}
    return [sock for sock in _all_tcp_sockets() if str(sock.inode) in inodes]


def _all_tcp_sockets() -> list[Socket]:
    lines: list[str] = []
    for table in ("tcp", "tcp6"):
        lines += Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    return [_parse_socket(line.split()) for line in lines]


def _parse_socket(columns: list[str]) -> Socket:
    local, remote = (int(address.rsplit(":", 1)[1], 16) for address in columns[1:3])
    return Socket(local, remote, columns[3], int(columns[9]))


def _status_kib(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise AssertionError(f"no {key} for process {pid}")


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third on; the second may contain anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rsplit(") ", 1)[1].split()
