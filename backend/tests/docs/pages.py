"""Pages with shell commands, run as they stand there: one shell for a whole page, as its reader has.

A block ```` ```sh ```` is run; a block ```` ```text ```` after it is what it prints. There `…` stands for
anything within a line, and a line that is only `…` for any number of lines.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[3]
_BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_MARK = "\x1e"


@dataclass(frozen=True, slots=True)
class Step:
    """The commands of one block, which begins at `line` of the page, and what they are said to print."""

    line: int
    commands: str
    printed: str | None = None

    @property
    def is_make(self) -> bool:
        """Whether it prepares what the tests have already: the environment, and a server."""
        return all(line.startswith("make ") for line in self.commands.splitlines())


def steps_of(markdown: str) -> list[Step]:
    found: list[Step] = []
    for block in _BLOCK.finditer(markdown):
        kind, text = block.groups()
        if kind == "sh":
            found.append(Step(markdown.count("\n", 0, block.start()) + 2, text))
        else:
            said = found.pop()
            assert said.printed is None, f"line {said.line} has two answers"
            found.append(Step(said.line, said.commands, text))
    return found


def run(steps: Sequence[Step], environment: Mapping[str, str], *, timeout_s: float) -> dict[int, str]:
    """Runs all steps in the top folder; what each has printed, by its line. The failed one is the last."""
    script = "\n".join(f"printf '\\036%s\\036' {step.line}\n{step.commands}" for step in steps)
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=TOP,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
    )
    parts = done.stdout.split(_MARK)[1:]
    printed = {int(line): text for line, text in zip(parts[::2], parts[1::2], strict=True)}
    if done.returncode:
        last = max(printed)
        printed[last] += f"\n(the shell ended with {done.returncode} here)"
    return printed


def prints(expected: str, printed: str) -> bool:
    pattern = "".join(_patterns(expected.rstrip().splitlines()))
    return re.fullmatch(pattern, printed.rstrip() + "\n") is not None


def _patterns(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        if line == "…":
            yield r"(?:.*\n)*?"
        else:
            yield ".*?".join(map(re.escape, line.split("…"))) + r" *\n"
