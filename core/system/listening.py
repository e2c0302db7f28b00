"""The sockets that listen on a TCP port, asked of the kernel by sock_diag(7). Linux only.

/proc/net/tcp has them, too, but to read it the kernel walks through its table of all connections: 15 ms.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, NLMSG_ERROR, NLMSG_DONE = 20, 2, 3
NLM_F_REQUEST_DUMP = 0x301
TCP_LISTEN = 10
HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence number, port
REQUEST = struct.Struct("=BBBxI48x")  # inet_diag_req_v2: family, protocol, extensions, states, socket
ANSWER = struct.Struct("=BBBB 2s2s 16s16s IQ IIIII")  # inet_diag_msg
READ = 1 << 16


class Listening(NamedTuple):
    """A socket that listens on a TCP port."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    inode: int


def listening(port: int) -> list[Listening]:
    """The sockets that listen on the port. Raises OSError where the kernel cannot tell."""
    return [each for family in (socket.AF_INET, socket.AF_INET6) for each in _listening(family, port)]


def _listening(family: socket.AddressFamily, port: int) -> Iterator[Listening]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as kernel:
        request = REQUEST.pack(family, socket.IPPROTO_TCP, 0, 1 << TCP_LISTEN)
        kernel.settimeout(1.0)
        kernel.send(HEADER.pack(HEADER.size + REQUEST.size, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 0, 0) + request)
        while True:
            data, at = kernel.recv(READ), 0
            while at < len(data):
                length, kind, *_ = HEADER.unpack_from(data, at)
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    (number,) = struct.unpack_from("=i", data, at + HEADER.size)
                    raise OSError(-number, "the kernel does not list sockets")
                found = ANSWER.unpack_from(data, at + HEADER.size)
                if int.from_bytes(found[4], "big") == port:
                    packed = found[6][: 4 if family == socket.AF_INET else 16]
                    yield Listening(ipaddress.ip_address(packed), found[-1])
                at += (length + 3) & ~3
