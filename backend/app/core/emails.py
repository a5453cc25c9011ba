"""Email addresses, as far as a mistake can be told from an address without writing to it."""

from __future__ import annotations

import re

MAX_EMAIL_LENGTH = 320
_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")


def email_fault(email: str) -> str:
    """What keeps `email` from being an address; empty if it may be one. Hosts need no dot."""
    if len(email) > MAX_EMAIL_LENGTH:
        return f"an address has at most {MAX_EMAIL_LENGTH} characters"
    return "" if _ADDRESS.fullmatch(email) else "an address is like 'ada@example.com'"
