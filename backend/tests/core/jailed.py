"""The ways in which workers are jailed, as tests try them all; and small limits for them."""

from __future__ import annotations

import pytest

from app.core.sandbox.code import CodeLimits
from app.core.sandbox.jail import Sandbox, find_jail
from app.core.sandbox.workers import monty_program

BRIEF = CodeLimits(timeout_s=0.2, grace_s=0.2, memory_bytes=16 * 2**20, output_bytes=5000, log_bytes=500)
SPACE = BRIEF.address_space
needs_bubblewrap = pytest.mark.skipif(
    find_jail(monty_program(), Sandbox.AUTO, memory_bytes=SPACE).bubblewrap is None,
    reason="bubblewrap is not installed, or may not do its work here",
)
WAYS = [pytest.param(Sandbox.BUBBLEWRAP, marks=needs_bubblewrap), Sandbox.LIMITS]
