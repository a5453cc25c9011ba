"""How test processes share the tests: a file is one process's, so that what its tests share is made once."""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

ONE_PROCESS = ("tests/trust/served", "tests/trust/runs")
"""Folders whose files share something expensive."""
FIRST = (*ONE_PROCESS, "tests/trust", "tests/embedded", "tests/cli", "tests/services", "tests/benchmarks")
"""What takes long begins first: with the small files at the end, all processes end at the same time."""


class ByFile(LoadScopeScheduling):
    """Keeps the order of the collection, which `in_order` has made."""

    def __init__(self, config: pytest.Config, log: object) -> None:
        super().__init__(config, log)  # type: ignore[arg-type]
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((folder for folder in ONE_PROCESS if _is_in(folder, file)), file)


def in_order(items: list[pytest.Item]) -> None:
    """Sorts by the rooms of `FIRST`; within a room all stays as it was."""

    def rank(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        return next((rank for rank, folder in enumerate(FIRST) if _is_in(folder, file)), len(FIRST))

    items.sort(key=rank)


def _is_in(folder: str, file: str) -> bool:
    return file.startswith(f"{folder}/")
