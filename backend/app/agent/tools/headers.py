"""Headers that a tool sends with every call, as they are: no references in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def literal(headers: Any) -> dict[str, Any]:
    """As templates of an `http` node that mean just them; secrets stay what they are."""
    return {
        name: value.replace("{{", "{{{{") if isinstance(value, str) else value
        for name, value in (headers.items() if isinstance(headers, Mapping) else ())
    }
