"""What the engine consumes to run Python that a graph brings along, as Protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Expressions(Protocol):
    """Evaluates Python expressions that passed `graph/expression_rules`.

    Raises an `AppError` whose message says what the expression did wrong.
    """

    async def evaluate(self, code: str, names: Mapping[str, Any]) -> Any:
        """The value of `code`, with `names` bound to JSON values; a JSON value itself."""
        ...


class CodeRunner(Protocol):
    """Runs Python code of graphs where it can reach nothing; the tenant is bound already.

    Raises an `AppError` whose message says what the code did wrong.
    """

    async def run(
        self, code: str, inputs: Mapping[str, Any], outputs: Sequence[str]
    ) -> tuple[dict[str, Any], str]:
        """Runs `code` with `inputs`, JSON values by name, as variables.

        The values of its variables `outputs`, as JSON values, and what it printed.
        """
        ...
