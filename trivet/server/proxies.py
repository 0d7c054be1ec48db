"""Proxies that are believed when they say for whom they ask.

A proxy writes the address that its own connection comes from behind what `X-Forwarded-For` says already. So from the
right each entry is as good as the proxy that wrote it: what a trusted one wrote is believed, and the first address that
is no trusted proxy's is the client's. What stands left of it was written by the client, or by whom it chose.

`Forwarded` (RFC 7239) is not read. A proxy that writes one of the two headers hands on the other as the client wrote
it, so to believe both would be to believe clients.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv6Network, ip_network
from typing import Final, TypeAlias, final

from trivet.server.addresses import Address, read_address

UNIX: Final = "unix"

# More trusted proxies behind one another than anybody has. What is further to the left is not looked at.
_HOPS: Final = 16

# "[" + an IPv6 address whose last 32 bits are written as an IPv4 one + "%" + a network interface's name + "]:65535".
_LONGEST_ENTRY: Final = 70

# Ports are nowhere in the header's description, and some proxies write them nevertheless. Zones mean something only on
# the machine of whoever wrote them: they are left out.
_ENTRY: Final = re.compile(
    r"\[(?P<bracketed>[0-9A-Fa-f:.]+)(?:%[^\],\s]+)?\](?::[0-9]{1,5})?"
    r"|(?P<four>[0-9.]+)(?::[0-9]{1,5})?"
    r"|(?P<six>[0-9A-Fa-f:.]+)(?:%[^\],\s]+)?"
)

# The version of addresses, the network as a number, and its mask.
_Network: TypeAlias = tuple[int, int, int]


@final
class TrustedProxies:
    """The proxies whose `X-Forwarded-For` is believed.

    An entry is an address, a network (`10.0.0.0/8`), or `unix` for whoever connects without an address, as over a Unix
    socket. Raises ValueError, which names it, for anything else.
    """

    __slots__ = ("_networks", "_unix")

    def __init__(self, entries: Iterable[str] = ()) -> None:
        names = list(entries)
        self._unix: Final = UNIX in names
        self._networks: Final = tuple(_network(name) for name in names if name != UNIX)

    def trusts(self, peer: str | None) -> bool:
        """Whether what a connection from this address says is believed."""
        if peer is None:
            return self._unix
        if not self._networks:
            return False
        ip = read_address(peer)
        return ip is not None and self._have(ip)

    def client(self, peer: str | None, forwarded: str | None) -> str | None:
        """The address for which a trusted proxy asks: the rightmost that is no trusted proxy's itself.

        `peer` is the proxy's own, `forwarded` the header, or all of them, joined in their order. An entry that cannot
        be read is not believed, nor is what stands left of it: then it is the address of the proxy that wrote the
        entry. So it is where there is no entry more. It costs the same for a header of any length.
        """
        if forwarded is None:
            return peer
        client = peer
        local = peer is None or _is_loopback(read_address(peer))
        for entry in reversed(forwarded.rsplit(",", _HOPS)[-_HOPS:]):
            ip = _read_entry(entry)
            if ip is None:
                break
            # Another machine's loopback address is that machine, and no program of this one.
            if local or not ip.is_loopback:
                client = str(ip)
                local = ip.is_loopback
            if not self._have(ip):
                break
        return client

    def _have(self, ip: Address) -> bool:
        version, number = ip.version, int(ip)
        return any(version == kind and number & mask == network for kind, network, mask in self._networks)


def _network(entry: str) -> _Network:
    try:
        network = ip_network(entry)
    except ValueError:
        raise ValueError(f"{entry!r} is no address and no network of a proxy{_hint(entry)}") from None
    number, mask = int(network.network_address), int(network.netmask)
    if isinstance(network, IPv6Network):
        four = network.network_address.ipv4_mapped
        if four is not None and network.prefixlen >= 96:
            return 4, int(four), mask
    return network.version, number, mask


def _hint(entry: str) -> str:
    try:
        return f": did you mean {ip_network(entry, strict=False)}?"
    except ValueError:
        return f": write it as in 192.0.2.1 or 10.0.0.0/8, or {UNIX} for Unix sockets"


def _read_entry(entry: str) -> Address | None:
    text = entry.strip(" \t")
    match = _ENTRY.fullmatch(text) if len(text) <= _LONGEST_ENTRY else None
    return None if match is None or match.lastgroup is None else read_address(match[match.lastgroup])


def _is_loopback(ip: Address | None) -> bool:
    return ip is not None and ip.is_loopback
