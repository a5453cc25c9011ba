"""A list while it is read: items as lines, nested ones indented, one block in the end."""

from __future__ import annotations

from app.rag.components.parsers.draft import Writer

_MAX_INDENT = 8


class Listing:
    """Lines of one outermost list. `open` and `close` nest; the last `close` writes the block."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._lines: list[str] = []
        self._counters: list[int | None] = []
        self._marker = ""
        self._detail = False

    @property
    def is_open(self) -> bool:
        return bool(self._counters)

    def open(self, *, ordered: bool, start: int = 1) -> None:
        self._counters.append(start if ordered else None)
        self._detail = False

    def item(self, *, detail: bool = False) -> None:
        """The next text starts an item, or with `detail` continues the last one (a definition)."""
        if not self._counters:
            return
        counter = self._counters[-1]
        self._detail = detail
        self._marker = "" if detail else "- " if counter is None else f"{counter}. "
        if counter is not None:
            self._counters[-1] = counter + 1

    def text(self, text: str) -> None:
        """Adds lines to the current item."""
        indent = "  " * min(len(self._counters) - 1, _MAX_INDENT)
        for line in text.split("\n"):
            lead = self._marker or ("  " if self._lines else "")
            self._lines.append(indent + lead + line)
            self._marker = ""

    def close(self) -> None:
        self._counters.pop()
        self._marker = ""
        if not self._counters:
            self._writer.add("list", "\n".join(self._lines))
            self._lines.clear()
