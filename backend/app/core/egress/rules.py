"""Which hosts, addresses and ports may be called: what is public, and what the operator opens or closes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_network

from app.core.addresses import METADATA, Address, Network, embedded, read_host, special_kind
from app.core.egress.errors import EgressDenied
from app.core.entries import entries

_RULE_FORMS = (
    "a host name (`wiki.internal`), an address (`10.0.0.5`, `fd00::5`), either with a port "
    "(`wiki.internal:8443`, `[fd00::5]:443`), or a network (`10.0.0.0/8`)"
)
_REMEDY = "The operator can open an internal host with ORRERY_EGRESS_ALLOW."


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports `first` to `last`, both included."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> Ports:
        first, dash, last = text.strip().partition("-")
        try:
            ports = cls(_port(first), _port(last if dash else first))
        except ValueError:
            raise ValueError(f"{text!r} is neither a port (`443`) nor a range (`1024-65535`)") from None
        if ports.first > ports.last:
            raise ValueError(f"{text!r} is empty: write the lower port first")
        return ports

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of the operator's lists: a host name or addresses, on one port or on all."""

    where: str | Network
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Raises `ValueError` that names the entry and the forms there are."""
        try:
            return cls._parse(text.strip())
        except ValueError as error:
            raise ValueError(f"{text!r} is not {_RULE_FORMS}: {error}") from None

    @classmethod
    def _parse(cls, text: str) -> Rule:
        if "/" in text:
            network = ip_network(text)
            if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
                raise ValueError("write a network of IPv4 addresses as IPv4")
            return cls(network)
        host, port = text, None
        if text.startswith("[") or text.count(":") == 1:
            host, colon, digits = text.rpartition(":") if not text.endswith("]") else (text, "", "")
            port = _port(digits) if colon else None
        where = read_host(host)
        return cls(where if isinstance(where, str) else ip_network(where), port)

    def covers(self, host: str | Address, address: Address, port: int) -> bool:
        """Whether a call of `host`, which is at `address`, is meant."""
        if self.port not in (None, port):
            return False
        if isinstance(self.where, str):
            return self.where == host
        return address.version == self.where.version and address in self.where

    def is_exactly(self, address: Address) -> bool:
        return not isinstance(self.where, str) and self.where == ip_network(address)


DEFAULT_PORTS = (Ports(80, 80), Ports(443, 443), Ports(1024, 65535))


@dataclass(frozen=True, slots=True)
class Rules:
    """`deny` beats `allow`; `allow` opens what is not public, on any port unless it names one.

    `ports` are those of the public internet. Cloud metadata is opened by its exact address only, never by
    a network or a name that happens to include it. An IPv6 address that carries an IPv4 address is
    refused with that one, even where a network around it is opened.
    """

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()
    ports: tuple[Ports, ...] = DEFAULT_PORTS

    def admit(self, host: str | Address, port: int, addresses: Sequence[Address]) -> bool:
        """Whether `host` may be called, being at `addresses` (canonical): only if every one is allowed.

        One forbidden address among them is how rebinding looks, so it refuses the host. None refuses too.
        """
        every = [inner for address in addresses for inner in (address, *embedded(address))]
        return bool(every) and all(self._admit_one(host, port, address) for address in every)

    def _admit_one(self, host: str | Address, port: int, address: Address) -> bool:
        if any(rule.covers(host, address, port) for rule in self.deny):
            return False
        opened = [rule for rule in self.allow if rule.covers(host, address, port)]
        if address in METADATA:
            return any(rule.is_exactly(address) for rule in opened)
        return bool(opened) or (
            special_kind(address) is None and not _is_localhost(host) and self._is_open(port)
        )

    def _is_open(self, port: int) -> bool:
        return any(port in ports for ports in self.ports)

    def refusal(self, host: str | Address, port: int) -> EgressDenied:
        """What the caller is told. For a name it depends on nothing that was looked up: a name that does
        not exist and one that leads inside get the same answer, or the message would map the inside.
        """
        if isinstance(host, str):
            reasons = ["the name does not exist, or leads to an address closed to outgoing calls"]
        else:
            kinds = [special_kind(address) for address in (host, *embedded(host))]
            reasons = [f"the address is {kind}" for kind in kinds if kind][:1]
        if not self._is_open(port):
            reasons.append(f"port {port} is not open (open: {', '.join(map(str, self.ports))})")
        why = "; ".join(reasons) or "the operator closed it"
        return EgressDenied(f"{str(host)!r} may not be called: {why}. {_REMEDY}")


def _is_localhost(host: str | Address) -> bool:
    """RFC 6761: never on the network, whatever a name server says."""
    return isinstance(host, str) and f".{host}".endswith(".localhost")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        raise ValueError(f"{text!r} is not a port between 1 and 65535")
    return int(text)


def read_rules(value: object) -> tuple[object, ...]:
    """A setting: entries separated by commas, or a list (of JSON, too); what is parsed already passes."""
    return tuple(Rule.parse(entry) if isinstance(entry, str) else entry for entry in entries(value))


def read_ports(value: object) -> tuple[object, ...]:
    return tuple(
        Ports.parse(str(entry)) if isinstance(entry, str | int) else entry for entry in entries(value)
    )
