"""The last net under logs and errors: credentials whose form is known are masked wherever they turn up."""

from __future__ import annotations

import re

_API_KEY = re.compile(r"orr_[0-9a-f]{32}_[A-Za-z0-9_-]+")
_PASSWORD_IN_URL = re.compile(r"(://[^\s/:@\"']*:)[^\s@\"']+@")


def mask_credentials(text: str) -> str:
    """`text` without our API keys and without the passwords of URLs."""
    if "orr_" in text:
        text = _API_KEY.sub("orr_…", text)
    return _PASSWORD_IN_URL.sub(r"\1…@", text) if "://" in text else text
