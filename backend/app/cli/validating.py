"""`orrery validate`: a file with an agent document, held against everything the compiler checks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from app.agent.graph.compiler import AgentCompiler
from app.agent.graph.issues import InvalidGraph
from app.agent.graph.loading import load_document
from app.agent.graph.places import Places, line_of_mistake
from app.cli.undecided import Undecided
from app.core.report import Issue, Report, Severity

Check = Callable[[Any], Report]
"""Document → everything that is wrong with it."""
STDIN = Path("-")


@dataclass(frozen=True, slots=True)
class Validated:
    """What was found in `file`, each with its line. `checked_by` is a server's URL, or `offline`."""

    file: str
    checked_by: str
    found: list[tuple[Issue, int | None]]

    @property
    def errors(self) -> int:
        return sum(issue.severity is Severity.ERROR for issue, _ in self.found)

    def document(self) -> dict[str, Any]:
        issues = [issue.model_dump(mode="json") | {"line": line} for issue, line in self.found]
        return {
            "file": self.file,
            "valid": not self.errors,
            "checked_by": self.checked_by,
            "issues": issues,
        }


def validate(file: Path, check: Check | None = None, *, checked_by: str = "offline") -> Validated:
    """Checks the JSON or YAML in `file` (`-`: standard input), offline where nothing else is to `check` it.

    Raises `OSError` or `Undecided` where it cannot be read.
    """
    text = read_text(file)
    check = check or AgentCompiler().check
    name = "standard input" if file == STDIN else str(file)
    try:
        document = load_document(text)
    except InvalidGraph as error:
        line = line_of_mistake(error.__cause__)
        return Validated(name, checked_by, [(issue, line) for issue in error.report.issues])
    places = Places(text)
    found = [(issue, places.line(issue.pointer)) for issue in check(document).issues]
    return Validated(name, checked_by, found)


def read_text(file: Path) -> str:
    """What is in `file` (`-`: standard input). Raises `OSError` or `Undecided`."""
    content = sys.stdin.buffer.read() if file == STDIN else file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Undecided(f"{str(file)!r} is not UTF-8 text (byte {error.start}).") from error


def show(console: Console, validated: Validated) -> None:
    """One paragraph per issue, as compilers write them, and a last line that counts."""
    colours = {Severity.ERROR: "red", Severity.WARNING: "yellow"}
    for issue, line in validated.found:
        place = f"{validated.file}:{line}" if line else validated.file
        colour = colours[issue.severity]
        heading = f"{escape(place)}: [{colour}]{issue.severity.value}[/] [bold]{escape(issue.code)}[/]"
        console.print(f"{heading} at {escape(issue.pointer) or 'the document'}", soft_wrap=True)
        console.print(f"  {issue.message}", markup=False, soft_wrap=True)
        if issue.fix:
            console.print(f"  fix: {issue.fix}", markup=False, soft_wrap=True)
    warnings = len(validated.found) - validated.errors
    counted = ", ".join(
        f"{count} {word}{'' if count == 1 else 's'}"
        for count, word in ((validated.errors, "error"), (warnings, "warning"))
        if count
    )
    verdict = "[red]invalid[/]" if validated.errors else "[green]valid[/]"
    console.print(f"{escape(validated.file)}: {verdict}{counted and ', ' + counted}", soft_wrap=True)
