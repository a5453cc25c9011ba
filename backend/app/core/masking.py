"""The last net under logs and errors: credentials whose form is known are masked wherever they turn up."""

from __future__ import annotations

import re

_OURS = re.compile(r"(or[rf])_[0-9a-f]{32}_[A-Za-z0-9_-]+")
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_PASSWORD_IN_URL = re.compile(r"(://[^\s/:@\"']*:)[^\s@\"']+@")


def mask_credentials(text: str) -> str:
    """`text` without our API keys and tokens and without the passwords of URLs."""
    if "orr_" in text or "orf_" in text:
        text = _OURS.sub(r"\1_…", text)
    if "eyJ" in text:
        text = _JWT.sub("eyJ…", text)
    return _PASSWORD_IN_URL.sub(r"\1…@", text) if "://" in text else text
