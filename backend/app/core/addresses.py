"""What an internet address is, judged by our own tables, and how a host may be written in a URL.

`ipaddress.is_global` is no filter: it accepts NAT64 and 6to4 spellings of private addresses. Here IPv4 is
public unless a table says otherwise (IANA special-purpose registry, RFC 6890), and IPv6 only inside
2000::/3, without the parts of it that tunnel IPv4 or document things.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import idna

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_MAX_NAME = 253

_SPECIAL = {
    "this network": ("0.0.0.0/8", "::/128"),
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10"),
    "shared (carrier-grade NAT)": ("100.64.0.0/10",),
    "link-local": ("169.254.0.0/16", "fe80::/10"),
    "documentation": ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"),
    "benchmark": ("198.18.0.0/15",),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
    "tunnelled IPv4": ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "192.88.99.0/24"),
    "reserved": ("192.0.0.0/24", "240.0.0.0/4", "2001::/23"),
}
_KINDS = [(ip_network(text), kind) for kind, texts in _SPECIAL.items() for text in texts]
_GLOBAL_UNICAST = IPv6Network("2000::/3")

_TUNNELS = tuple(map(IPv6Network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/48")))
"""IPv4-compatible and NAT64 (RFC 6052, RFC 8215): the last 32 bits are an IPv4 address."""

METADATA = frozenset(
    map(
        ip_address,
        (
            *("169.254.169.254", "fd00:ec2::254", "fd20:ce::254"),  # AWS, Google, Azure, OpenStack, …
            *("169.254.170.2", "169.254.170.23", "fd00:ec2::23"),  # credentials of AWS containers
            *("100.100.100.200", "168.63.129.16", "192.0.0.192"),  # Alibaba, Azure, Oracle
            *("169.254.0.23", "169.254.42.42", "fd00:42::42"),  # Tencent, Scaleway
        ),
    )
)
"""Where clouds hand out credentials to whoever asks from inside."""


def canonical(address: Address) -> Address:
    """IPv4 for IPv4-mapped IPv6 (`::ffff:a.b.c.d`), which the system dials as IPv4; else as it is."""
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def embedded(address: Address) -> Iterator[IPv4Address]:
    """Every IPv4 address that packets to `address` may end at: NAT64, IPv4-compatible, 6to4, Teredo."""
    if isinstance(address, IPv6Address):
        if any(address in tunnel for tunnel in _TUNNELS) and int(address) > 1:  # not `::` and `::1`
            yield IPv4Address(int(address) & 0xFFFFFFFF)
        if address.sixtofour:
            yield address.sixtofour
        yield from address.teredo or ()


def special_kind(address: Address) -> str | None:
    """Why `address` (canonical) is not on the public internet, in a word or two; None if it is."""
    if address in METADATA:
        return "cloud metadata"
    for network, kind in _KINDS:
        if address.version == network.version and address in network:
            return kind
    if isinstance(address, IPv6Address) and (address not in _GLOBAL_UNICAST or address.scope_id):
        return "reserved"
    return None


def read_host(text: str) -> str | Address:
    """The host of a URL: a lower-case ASCII name without trailing dot, or a canonical address.

    Raises `ValueError` with the reason. IPv4 is taken only as four decimal numbers: other spellings
    (`127.1`, `0x7f.1`, `2130706433`, `0177.0.0.1`) mean different hosts to different programs.
    """
    bracketed = text.startswith("[") and text.endswith("]")
    if bracketed or ":" in text:
        return _read_ipv6(text[1:-1] if bracketed else text)
    name = _ascii(text).lower().removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return IPv4Address(name)
        except ValueError:
            raise ValueError("an IPv4 address is written as four decimal numbers") from None
    if not name:
        raise ValueError("the host is empty")
    if len(name) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("a host name consists of letters, digits, `-`, `_` and single dots")
    return name


def _read_ipv6(text: str) -> Address:
    if "%" in text:
        raise ValueError("an address with a zone belongs to one machine")
    try:
        return canonical(IPv6Address(text))
    except ValueError:
        raise ValueError("it is not an IPv6 address") from None


def _ascii(text: str) -> str:
    if text.isascii():
        return text
    try:
        return idna.encode(text.lower()).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise ValueError("it is not an internationalized host name (IDNA 2008)") from None
