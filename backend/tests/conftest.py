"""How the tests are collected and shared out; the fixtures are in `tests/fixtures.py`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from app.core.garbage import kept
from tests import scheduling

pytest.register_assert_rewrite("tests.fixtures")


_PROVIDERS = ("OPENAI_API_KEY", "OPENAI_BASE_URL")
"""What the platform reads without its prefix: no test may call whom the developer calls."""


NOTHING_IS_TIMED = "nothing is timed"
settings.register_profile(NOTHING_IS_TIMED, deadline=None)  # a busy machine is no failure


def pytest_configure(config: pytest.Config) -> None:
    """A process that only hands tests out to others needs none of the product, whose import takes long."""
    for name in _PROVIDERS:
        os.environ.pop(name, None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Of a job in the background; what it starts would not hear of interrupts either.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not config.getoption("numprocesses", None):
        settings.load_profile(NOTHING_IS_TIMED)
        config.pluginmanager.import_plugin("tests.fixtures")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Tests and what they import stay: a tenth of their collection would be the garbage collector's."""
    with kept():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    scheduling.in_order(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> scheduling.ByFile:
    return scheduling.ByFile(config, log)
