"""Addresses as the server compares them: an IPv4 address that is written as an IPv6 one is an IPv4 address."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address


@lru_cache(maxsize=1024)  # clients come again, and reading takes longer than all else that is done with an address
def read_address(text: str) -> Address | None:
    """The address that a text is, None where it is none. An IPv6 one may name its zone."""
    try:
        ip = ip_address(text)
    except ValueError:
        return None
    # Sockets that take both kinds, and some proxies, write `::ffff:192.0.2.1` (RFC 4291 section 2.5.5.2).
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip
