"""The operator's lists: how they are written, and what they open and close."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from pydantic import ValidationError

from app.core.addresses import Address, canonical, read_host
from app.core.config import Settings
from app.core.egress import Ports, Rule, Rules

FORMS = (
    "wiki.internal",
    "wiki.internal:8443",
    "10.0.0.5",
    "10.0.0.5:80",
    "fd00::5",
    "[fd00::5]:443",
    "10.0.0.0/8",
)


def rules(*allow: str, deny: tuple[str, ...] = ()) -> Rules:
    return Rules(tuple(map(Rule.parse, allow)), tuple(map(Rule.parse, deny)))


def admits(found: Rules, host: str, *addresses: str, port: int = 443) -> bool:
    where = read_host(host)
    given: list[Address] = [canonical(ip_address(text)) for text in addresses]
    return found.admit(where, port, given if isinstance(where, str) else [where])


class TestWriting:
    @pytest.mark.parametrize("form", FORMS)
    def test_each_form_is_read(self, form: str) -> None:
        assert Rule.parse(f" {form} ")

    @pytest.mark.parametrize(
        "entry",
        [
            *("http://wiki.internal", "10.0.0.1/8", "10.0.0.0/33", "127.1", "wiki:", "wiki:0", "wiki:99999"),
            *(
                "wiki:http",
                "*.internal",
                "a b",
                "[fd00::5",
                "fe80::1%eth0",
                "::ffff:10.0.0.0/104",
                "10.0.0.0/8:80",
            ),
        ],
    )
    def test_another_form_is_refused_with_its_name_and_the_forms_there_are(self, entry: str) -> None:
        with pytest.raises(ValueError, match=r"wiki\.internal:8443") as refused:
            Rule.parse(entry)
        assert str(refused.value).startswith(repr(entry))

    @pytest.mark.parametrize(
        "text", ["a.internal, 10.0.0.0/8,", '["a.internal", "10.0.0.0/8"]', "a.internal,10.0.0.0/8"]
    )
    def test_the_setting_is_a_list_by_commas_or_json(
        self, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        monkeypatch.setenv("ORRERY_EGRESS_ALLOW", text)
        expected = (Rule.parse("a.internal"), Rule.parse("10.0.0.0/8"))
        assert Settings(_env_file=None).egress_allow == expected

    def test_a_list_may_start_with_an_ipv6_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ORRERY_EGRESS_DENY", "[fd00::5]:443")
        assert Settings(_env_file=None).egress_deny == (Rule.parse("[fd00::5]:443"),)

    @pytest.mark.parametrize("name", ["ALLOW", "DENY"])
    def test_a_wrong_entry_of_a_setting_is_named(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv(f"ORRERY_EGRESS_{name}", "a.internal,http://b")
        with pytest.raises(ValidationError, match="'http://b' is not a host name"):
            Settings(_env_file=None)

    @pytest.mark.parametrize("text", ["443", "443,8000-9000", "[443]"])
    def test_ports_are_numbers_and_ranges(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv("ORRERY_EGRESS_PORTS", text)
        assert Settings(_env_file=None).egress_ports[0] == Ports(443, 443)

    @pytest.mark.parametrize("text", ["https", "0", "65536", "9-8", "80-", "-80"])
    def test_other_ports_are_refused_by_name(self, text: str) -> None:
        with pytest.raises(ValueError, match=repr(text)):
            Ports.parse(text)


class TestDefault:
    def test_opens_the_public_internet_on_the_ports_of_http(self) -> None:
        found = {port: admits(rules(), "1.1.1.1", port=port) for port in (22, 25, 80, 443, 1023, 1024, 8443)}
        assert [port for port, admitted in found.items() if admitted] == [80, 443, 1024, 8443]

    def test_refuses_a_name_without_addresses(self) -> None:
        assert not admits(rules(), "a.example")

    @pytest.mark.parametrize("inner", ["10.0.0.1", "::1", "fe80::1", "::ffff:127.0.0.1", "2002:a00:1::1"])
    def test_refuses_a_name_of_which_one_address_is_internal(self, inner: str) -> None:
        assert not admits(rules(), "a.example", "1.1.1.1", inner, "8.8.8.8")

    @pytest.mark.parametrize("name", ["localhost", "a.localhost"])
    def test_refuses_localhost_wherever_it_is_said_to_be(self, name: str) -> None:
        assert not admits(rules(), name, "1.1.1.1")


class TestAllow:
    @pytest.mark.parametrize(
        "rule", ["db.internal", "db.internal:443", "10.0.0.5", "10.0.0.5:443", "10.0.0.0/8"]
    )
    def test_opens_what_it_names(self, rule: str) -> None:
        assert admits(rules(rule), "db.internal", "10.0.0.5")

    @pytest.mark.parametrize(
        "rule",
        ["b.internal", "internal", "db.internal:80", "10.0.0.6", "10.0.0.5:80", "10.1.0.0/16", "fd00::/8"],
    )
    def test_opens_nothing_else(self, rule: str) -> None:
        assert not admits(rules(rule), "db.internal", "10.0.0.5")

    def test_opens_any_port_unless_it_names_one(self) -> None:
        assert admits(rules("db.internal"), "db.internal", "10.0.0.5", port=22)

    def test_of_a_name_does_not_open_its_address_to_other_names(self) -> None:
        assert not admits(rules("db.internal"), "evil.example", "10.0.0.5")

    def test_of_localhost_opens_it(self) -> None:
        assert admits(rules("localhost:11434"), "localhost", "127.0.0.1", "::1", port=11434)

    @pytest.mark.parametrize("rule", ["0.0.0.0/0", "169.254.0.0/16", "a.internal", "169.254.169.254:80"])
    def test_does_not_open_metadata_by_the_way(self, rule: str) -> None:
        assert not admits(rules(rule), "a.internal", "169.254.169.254")

    def test_opens_metadata_by_its_address(self) -> None:
        assert admits(rules("169.254.169.254:80"), "169.254.169.254", port=80)

    def test_of_nat64_opens_public_ipv4_behind_it(self) -> None:
        assert admits(rules("64:ff9b::/96"), "a.example", "64:ff9b::8.8.8.8")

    @pytest.mark.parametrize("inner", ["10.0.0.1", "169.254.169.254", "127.0.0.1"])
    def test_of_nat64_does_not_open_internal_ipv4_behind_it(self, inner: str) -> None:
        assert not admits(rules("64:ff9b::/96"), "a.example", f"64:ff9b::{inner}")

    def test_of_ipv6_loopback_opens_it(self) -> None:
        assert admits(rules("::1"), "[::1]")


class TestDeny:
    @pytest.mark.parametrize("rule", ["a.example", "1.1.1.0/24", "1.1.1.1:443"])
    def test_closes_what_is_public(self, rule: str) -> None:
        assert not admits(rules(deny=(rule,)), "a.example", "1.1.1.1")

    def test_beats_allow(self) -> None:
        assert not admits(rules("10.0.0.0/8", deny=("10.0.0.5",)), "10.0.0.5")

    def test_sees_through_mapped_addresses(self) -> None:
        assert not admits(rules(deny=("1.1.1.1",)), "[::ffff:1.1.1.1]")


class TestRefusal:
    def test_of_a_name_says_nothing_that_was_looked_up(self) -> None:
        detail = rules().refusal("db.internal", 443).detail
        assert detail == (
            "'db.internal' may not be called: the name does not exist, or leads to an address closed to "
            "outgoing calls. The operator can open an internal host with ORRERY_EGRESS_ALLOW."
        )

    @pytest.mark.parametrize(
        ("host", "port", "reason"),
        [
            ("127.0.0.1", 443, "the address is loopback"),
            ("169.254.169.254", 80, "the address is cloud metadata"),
            ("1.1.1.1", 25, "port 25 is not open (open: 80, 443, 1024-65535)"),
            ("10.0.0.1", 22, "the address is private; port 22 is not open"),
            ("a.example", 22, "outgoing calls; port 22 is not open"),
            ("1.1.1.1", 443, "the operator closed it"),
        ],
    )
    def test_names_the_reason(self, host: str, port: int, reason: str) -> None:
        assert reason in rules().refusal(read_host(host), port).detail
