"""As much HTTP/2 as one GET needs: to see whether a proxy serves, and to hold connections that have carried one."""

from __future__ import annotations

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_BYTES = 9
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
# Entries of HPACK's static table: whole fields as indices, and :authority as a name that a literal value follows.
METHOD_GET, PATH_ROOT, SCHEME_HTTP, SCHEME_HTTPS, AUTHORITY, STATUS_200 = 0x82, 0x84, 0x86, 0x87, 0x41, 0x88


class Http2Error(Exception):
    """An answer that is no 200, or none."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def get_root(connection: socket.socket, is_tls: bool) -> None:
    """Opens the connection's HTTP/2 with a GET of / and returns once that is answered with 200, to its last byte."""
    authority = b"127.0.0.1"
    scheme = SCHEME_HTTPS if is_tls else SCHEME_HTTP
    block = bytes((METHOD_GET, scheme, PATH_ROOT, AUTHORITY, len(authority))) + authority
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
    is_ok = False
    while True:
        kind, flags, payload = read_frame(connection)
        if kind == SETTINGS and not flags & ACK:
            connection.sendall(frame(SETTINGS, ACK, 0))
        if kind in (RST_STREAM, GOAWAY):
            raise Http2Error(f"frame type {kind} instead of an answer: {payload!r}")
        if kind == HEADERS:
            is_ok = is_ok or has_status_200(flags, payload)
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            break
    if not is_ok:
        raise Http2Error("an answer other than 200")


def has_status_200(flags: int, payload: bytes) -> bool:
    """Whether a block of fields begins with the index of `:status: 200`, perhaps after new sizes of the table."""
    block = payload[(1 if flags & PADDED else 0) + (5 if flags & PRIORITY else 0):]
    while block and block[0] & 0xE0 == 0x20:
        is_long = block[0] & 0x1F == 0x1F
        block = block[1:]
        while is_long and block:
            is_long, block = bool(block[0] & 0x80), block[1:]
    return block[:1] == bytes((STATUS_200,))


def read_frame(connection: socket.socket) -> tuple[int, int, bytes]:
    """(type, flags, payload) of the next frame."""
    header = read_exactly(connection, FRAME_HEADER_BYTES)
    length = int.from_bytes(header[:3])
    return header[3], header[4], read_exactly(connection, length)


def read_exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        received = connection.recv(count - len(data))
        if not received:
            raise Http2Error("the connection was closed before the answer")
        data += received
    return data
