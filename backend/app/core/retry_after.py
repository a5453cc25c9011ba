"""How long another server asks us to wait (RFC 9110, 10.2.3)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_LONGEST_S = 3600.0


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """By `retry-after-ms`, or by `retry-after` in seconds or as a date: an hour at most, None if unsaid.

    `headers` have names in lower case.
    """
    given = headers.get("retry-after-ms", ""), headers.get("retry-after", "")
    for text, unit_s in zip(given, (0.001, 1.0), strict=True):
        try:
            wait_s = float(text) * unit_s
        except ValueError:
            continue
        return _bounded(wait_s) if wait_s == wait_s else None
    try:
        return _bounded(parsedate_to_datetime(given[1]).timestamp() - time.time())
    except ValueError:
        return None


def _bounded(wait_s: float) -> float:
    return min(max(wait_s, 0.0), _LONGEST_S)
