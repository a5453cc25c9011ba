"""Where requests come from."""

import pytest

from app.core.client_address import address_hint, counted_address


class TestCountedAddress:
    @pytest.mark.parametrize(
        ("address", "counted"),
        [
            ("203.0.113.7", "203.0.113.7/32"),
            ("::ffff:203.0.113.7", "203.0.113.7/32"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            (None, "unknown"),
            ("", "unknown"),
            ("_hidden", "unknown"),
        ],
    )
    def test_is_that_of_one_customer(self, address: str | None, counted: str) -> None:
        assert counted_address(address) == counted


class TestAddressHint:
    @pytest.mark.parametrize(
        ("address", "hint"),
        [("203.0.113.7", "203.0.113.0/24"), ("2001:db8:1:2::3", "2001:db8:1::/48"), (None, "unknown")],
    )
    def test_names_no_single_machine(self, address: str | None, hint: str) -> None:
        assert address_hint(address) == hint
