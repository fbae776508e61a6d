#!/usr/bin/env python3
"""Rules of the sources that no other tool checks.

- The files that contain unsafe code are exactly those that ARCHITECTURE.md marks with [unsafe].
- Neither the master, which forks, nor workers, which must not block, nor the ring below them use anything
  that starts threads.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "Sources"
ARCHITECTURE = ROOT / "ARCHITECTURE.md"

THREADLESS_MODULES = ("Master", "Worker", "ShmRing")
UNSAFE = re.compile(r"\bunsafe\b")
STARTS_THREADS = re.compile(
    r"\bimport\s+(?:\w+\s+)?(Foundation|Dispatch|_Concurrency)\b|\b(async|await|Task|TaskGroup|actor|pthread_create)\b"
)
MARKED_FILE = re.compile(r"([\w./-]+\.swift)\b")


def code(path: Path) -> str:
    """The file without comments and string literals, one line for each line of it."""
    text = re.sub(r'"""(?:.|\n)*?"""', lambda match: "\n" * match[0].count("\n"), path.read_text())
    text = re.sub(r'"(?:\\.|[^"\\\n])*"', '""', text)
    text = re.sub(r"/\*(?:.|\n)*?\*/", lambda match: "\n" * match[0].count("\n"), text)
    return re.sub(r"//[^\n]*", "", text)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def unsafe_files() -> set[str]:
    return {relative(path) for path in SOURCES.rglob("*.swift") if UNSAFE.search(code(path))}


def marked_files() -> tuple[set[str], list[str]]:
    """The files that ARCHITECTURE.md marks, and complaints about marks that name no single file.

    A mark stands in a line with the names of the files it is for; a name may be the end of a path.
    """
    everything = [relative(path) for path in SOURCES.rglob("*.swift")]
    marked, complaints = set(), []
    for line in ARCHITECTURE.read_text().splitlines():
        if "[unsafe]" not in line:
            continue
        for name in MARKED_FILE.findall(line):
            found = [path for path in everything if f"/{path}".endswith(f"/{name}")]
            marked.update(found)
            if len(found) != 1:
                complaints.append(f"ARCHITECTURE.md: {name} is the name of {len(found)} files")
    return marked, complaints


def check_unsafe_list() -> list[str]:
    if not ARCHITECTURE.exists():
        return ["ARCHITECTURE.md is missing; it lists the files that contain unsafe code"]
    actual = unsafe_files()
    marked, complaints = marked_files()
    complaints += [f"{path}: contains unsafe code, mark it [unsafe] in ARCHITECTURE.md" for path in actual - marked]
    complaints += [f"{path}: contains no unsafe code, unmark it in ARCHITECTURE.md" for path in marked - actual]
    return complaints


def check_threads() -> list[str]:
    complaints = []
    for module in THREADLESS_MODULES:
        for path in (SOURCES / module).rglob("*.swift"):
            for number, line in enumerate(code(path).splitlines(), 1):
                if match := STARTS_THREADS.search(line):
                    complaints.append(f"{relative(path)}:{number}: {match[0]} may start threads")
    return complaints


def main() -> int:
    complaints = sorted(check_unsafe_list() + check_threads())
    print("\n".join(complaints), end="\n" if complaints else "", file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
