"""How the tests are collected and shared out; the fixtures are in `tests/fixtures.py`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from app.core.garbage import kept
from tests import scheduling

pytest.register_assert_rewrite("tests.fixtures")


_PROVIDERS = ("OPENAI_API_KEY", "OPENAI_BASE_URL")
"""What the platform reads without its prefix: no test may call whom the developer calls."""


def pytest_configure(config: pytest.Config) -> None:
    """A process that only hands tests out to others needs none of the product, whose import takes long."""
    for name in _PROVIDERS:
        os.environ.pop(name, None)
    if not config.getoption("numprocesses", None):
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
