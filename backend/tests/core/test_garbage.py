"""What stays is out of the garbage collector's sight."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from app.core.garbage import collect_seldom, kept


def test_collects_nothing_meanwhile_and_never_what_is_there_afterwards() -> None:
    before = gc.get_freeze_count()
    with kept():
        assert not gc.isenabled()
        stays = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(stays)


def test_leaves_the_collector_off_until_the_outermost_block_ends() -> None:
    with kept():
        with kept():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_goes_on_collecting_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), kept():
        raise ZeroDivisionError
    assert gc.isenabled()


def test_collects_more_seldom_than_python_would(usual_thresholds: tuple[int, int, int]) -> None:
    collect_seldom()
    assert gc.get_threshold()[0] > usual_thresholds[0]


@pytest.fixture
def usual_thresholds() -> Iterator[tuple[int, int, int]]:
    """Python's own, whatever other tests of this process have set."""
    before, usual = gc.get_threshold(), (700, 10, 10)
    gc.set_threshold(*usual)
    yield usual
    gc.set_threshold(*before)
