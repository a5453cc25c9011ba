"""Failures in a row: told when they begin and when they end, tried again less and less often."""

from __future__ import annotations

import structlog
from structlog.testing import capture_logs

from app.core.outages import Outage

logger = structlog.get_logger(__name__)


def test_is_told_once_with_its_first_error_and_once_when_it_is_over() -> None:
    outage = Outage(logger, "not_stored")
    with capture_logs() as logs:
        for number in range(5):
            outage.failed(OSError(f"number {number}"))
        outage.over()
    begun, over = logs
    assert (begun["event"], begun["error"]) == ("not_stored", "OSError('number 0')")
    assert (over["event"], over["of"], over["failures"]) == ("outage_over", "not_stored", 5)


def test_success_without_a_failure_is_no_news() -> None:
    with capture_logs() as logs:
        Outage(logger, "not_stored").over()
    assert logs == []


def test_the_next_one_is_told_again() -> None:
    outage = Outage(logger, "not_stored")
    with capture_logs() as logs:
        for _ in range(2):
            outage.failed(OSError())
            outage.over()
    assert [entry["event"] for entry in logs] == ["not_stored", "outage_over"] * 2


def test_pauses_grow_up_to_the_longest_and_begin_anew() -> None:
    outage = Outage(logger, "not_stored", first_pause_s=0.5, longest_pause_s=3)
    assert [outage.failed(OSError()) for _ in range(5)] == [0.5, 1, 2, 3, 3]
    outage.over()
    assert outage.failed(OSError()) == 0.5
