"""Where a request comes from, as coarsely as each use of it needs."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network

UNKNOWN = "unknown"


def counted_address(address: str | None) -> str:
    """Whose attempts are counted together: an IPv4 address, or the /64 that one IPv6 customer has."""
    return _network(address, v4=32, v6=64)


def address_hint(address: str | None) -> str:
    """What a person may recognise a place by, and no more: the /24 or the /48."""
    return _network(address, v4=24, v6=48)


def _network(address: str | None, *, v4: int, v6: int) -> str:
    try:
        found = ip_address((address or "").partition("%")[0])
    except ValueError:
        return UNKNOWN
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or found
    length = v4 if found.version == 4 else v6
    return str(ip_network((found, length), strict=False))
