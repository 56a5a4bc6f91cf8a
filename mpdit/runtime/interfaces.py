"""The network interface over which a run's processes reach one another."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of an interface
ELSEWHERE = "192.0.2.1"
"""An address reserved for documentation (RFC 5737), which stands for any other machine."""


def interface_to(host: str, *, several_machines: bool) -> str | None:
    """Return the name of the interface that reaches ``host``, None where it is unknown.

    gloo's own choice is the interface of this machine's name, which many sites map to loopback.

    Args:
        host: the machine of process 0, by name or address.
        several_machines: whether the interface must reach other machines: never loopback then.
    """
    if sys.platform != "linux":
        return None
    address = _source_address(host)
    if several_machines and (address is None or ipaddress.ip_address(address).is_loopback):
        address = _source_address(ELSEWHERE)
    return next((name for name in _names() if address and address in _addresses(name)), None)


def _source_address(host: str) -> str | None:
    """The address that packets to ``host`` would have as their source; none is sent."""
    with suppress(OSError):
        for family, kind, _, _, target in socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM):
            with suppress(OSError), socket.socket(family, kind) as probe:
                probe.connect(target)
                return str(probe.getsockname()[0]).partition("%")[0]
    return None


def _names() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def _addresses(interface: str) -> set[str]:
    found = set()
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        request = struct.pack("256s", interface.encode()[:15])
        found.add(socket.inet_ntoa(fcntl.ioctl(asked.fileno(), SIOCGIFADDR, request)[20:24]))
    with suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            digits, *_, name = line.split()
            if name == interface:
                found.add(str(ipaddress.IPv6Address(bytes.fromhex(digits))))
    return found
