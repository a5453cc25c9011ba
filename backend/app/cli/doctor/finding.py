"""What a check has found: how bad it is, what it is, and what to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from app.cli.doctor.subject import Subject


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """`remedy` is empty where nothing is to be done."""

    level: Level
    what: str
    remedy: str = ""


Findings = Iterable[Finding]
Check = Callable[[Subject], Findings | Awaitable[Findings]]
"""Looks and changes nothing; what it cannot look at now, because nothing runs, it says so."""


def ok(what: str) -> Finding:
    return Finding(Level.OK, what)


def warn(what: str, remedy: str) -> Finding:
    """It works, but it may not stay so, or not as well as it could."""
    return Finding(Level.WARN, what, remedy)


def fail(what: str, remedy: str) -> Finding:
    """It does not work, or it is not safe."""
    return Finding(Level.FAIL, what, remedy)
