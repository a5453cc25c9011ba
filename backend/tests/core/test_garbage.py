"""What stays is out of the garbage collector's sight."""

from __future__ import annotations

import gc

import pytest

from app.core.garbage import kept


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
