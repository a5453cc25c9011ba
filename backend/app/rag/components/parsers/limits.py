"""What parsing one file may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """Bounds for one file; beyond any of them parsing ends with a `ParseError`.

    `memory_bytes` is address space on top of what the empty parser needs; `max_text_bytes` is UTF-8 of
    the resulting text; `max_archive_ratio` is unpacked to packed size of an office file.
    """

    timeout_s: float = 120
    memory_bytes: int = 2 * 2**30
    max_pages: int = 5000
    max_text_bytes: int = 50 * 2**20
    max_archive_ratio: int = 200
