"""What an address is, and how a host may be written."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.addresses import METADATA, canonical, embedded, read_host, special_kind

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "168.63.129.15",
    "2000::1",
    "2001:200::1",
    "2003::1",
    "2606:4700:4700::1111",
    "2a00:1450:4001:800::200e",
    "3ffe:ffff::1",
    "3fff:1000::1",
]
SPECIAL = {
    "0.0.0.0": "this network",
    "::": "this network",
    "127.0.0.1": "loopback",
    "::1": "loopback",
    "10.1.2.3": "private",
    "fd12::1": "private",
    "100.64.0.1": "shared",
    "169.254.1.1": "link-local",
    "fe80::1": "link-local",
    "169.254.169.254": "cloud metadata",
    "fd00:ec2::254": "cloud metadata",
    "168.63.129.16": "cloud metadata",
    "100.100.100.200": "cloud metadata",
    "224.0.0.1": "multicast",
    "ff02::1": "multicast",
    "198.18.0.1": "benchmark",
    "255.255.255.255": "reserved",
    "2001:1ff::1": "reserved",
    "2001:db8::1": "documentation",
    "2002:808:808::1": "tunnelled IPv4",
    "64:ff9b::8.8.8.8": "tunnelled IPv4",
    "64:ff9b:1::8.8.8.8": "tunnelled IPv4",
    "::8.8.8.8": "tunnelled IPv4",
    "4000::1": "reserved",
    "2600::1%eth0": "reserved",
}


class TestKinds:
    @pytest.mark.parametrize("text", PUBLIC)
    def test_of_public_addresses_there_are_none(self, text: str) -> None:
        assert special_kind(ip_address(text)) is None

    @pytest.mark.parametrize(("text", "kind"), SPECIAL.items())
    def test_of_others_are_named(self, text: str, kind: str) -> None:
        assert (special_kind(ip_address(text)) or "").startswith(kind)

    @given(st.ip_addresses(v=4))
    def test_refuse_every_ipv4_address_that_python_calls_private(self, address: IPv4Address) -> None:
        assert special_kind(address) or (address.is_global and not address.is_multicast)

    @given(st.ip_addresses(v=6))
    def test_refuse_every_ipv6_address_outside_global_unicast(self, address: IPv6Address) -> None:
        assert special_kind(address) or int(address) >> 125 == 1

    @given(st.ip_addresses(v=6, network="2001::/23") | st.ip_addresses(v=6, network="2002::/16"))
    def test_refuse_what_tunnels_inside_global_unicast(self, address: IPv6Address) -> None:
        assert special_kind(address)

    @pytest.mark.parametrize("address", sorted(METADATA, key=str), ids=str)
    def test_refuse_metadata(self, address: IPv4Address | IPv6Address) -> None:
        assert special_kind(address) == "cloud metadata"


class TestEmbedded:
    @given(st.ip_addresses(v=4))
    def test_ipv4_of_a_mapped_address_is_the_address(self, inner: IPv4Address) -> None:
        assert canonical(IPv6Address(f"::ffff:{inner}")) == inner

    @given(st.ip_addresses(v=4), st.sampled_from(["64:ff9b::", "64:ff9b:1::"]))
    def test_ipv4_is_found_behind_nat64(self, inner: IPv4Address, prefix: str) -> None:
        assert list(embedded(IPv6Address(f"{prefix}{inner}"))) == [inner]

    @given(st.ip_addresses(v=4))
    def test_ipv4_is_found_in_6to4(self, inner: IPv4Address) -> None:
        outer = IPv6Address((0x2002 << 112) | (int(inner) << 80) | 1)
        assert list(embedded(outer)) == [inner]

    @given(st.ip_addresses(v=4), st.ip_addresses(v=4))
    def test_server_and_client_are_found_in_teredo(self, server: IPv4Address, client: IPv4Address) -> None:
        outer = IPv6Address((0x20010000 << 96) | (int(server) << 64) | (int(client) ^ 0xFFFFFFFF))
        assert list(embedded(outer)) == [server, client]

    @pytest.mark.parametrize("text", ["::", "::1", "2606:4700::1111", "10.0.0.1"])
    def test_elsewhere_there_is_none(self, text: str) -> None:
        assert list(embedded(ip_address(text))) == []


class TestHosts:
    @pytest.mark.parametrize(
        ("text", "host"),
        [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("my_service", "my_service"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
            ("1.2.3.4", IPv4Address("1.2.3.4")),
            ("1.2.3.4.", IPv4Address("1.2.3.4")),
            ("127。0。0。1", IPv4Address("127.0.0.1")),
            ("[2600::1]", IPv6Address("2600::1")),
            ("2600:0::1", IPv6Address("2600::1")),
            ("[::ffff:1.2.3.4]", IPv4Address("1.2.3.4")),
            ("4chan.org", "4chan.org"),
            ("0x.example", "0x.example"),
        ],
    )
    def test_are_read(self, text: str, host: object) -> None:
        assert read_host(text) == host

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "empty"),
            (".", "empty"),
            ("127.1", "four decimal"),
            ("0177.0.0.1", "four decimal"),
            ("2130706433", "four decimal"),
            ("0x7f.1", "four decimal"),
            ("a.0x", "four decimal"),
            ("[fe80::1%eth0]", "zone"),
            ("[1.2.3.4]", "not an IPv6 address"),
            ("a..b", "single dots"),
            ("a%2eb", "single dots"),
            ("a b", "single dots"),
            ("１２７.0.0.1", "IDNA"),
        ],
    )
    def test_in_other_spellings_are_refused(self, text: str, reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            read_host(text)

    @given(st.text(max_size=40))
    def test_are_read_the_same_a_second_time_or_refused(self, text: str) -> None:
        try:
            host = read_host(text)
        except ValueError:
            return
        assert read_host(str(host)) == host
