"""Every installed distribution has a licence that may be shipped with a product under Apache-2.0.

    python scripts/licences.py

prints a line for each distribution that has not, with what to do, and exits 1 if there is one. What counts
is its metadata: `License-Expression` (PEP 639), else its trove classifiers, else the field `License`.
What `requirements.txt` lists is held to `PERMISSIVE`; the tools of development may also be `TOOLS_ONLY`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

BACKEND = Path(__file__).resolve().parents[1]

PERMISSIVE = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
        "HPND",
        "ISC",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "MPL-2.0",  # copyleft file by file: used as it comes, nothing of it is copied into our files
        "PostgreSQL",
        "PSF-2.0",
        "Python-2.0",
        "Unlicense",
        "Zlib",
    }
)
TOOLS_ONLY = frozenset(
    {
        "EPL-2.0",
        "GPL-2.0-or-later",
        "GPL-3.0-or-later",
        "LGPL-2.1-or-later",
        "LGPL-3.0-only",
        "LGPL-3.0-or-later",
    }
)

SPOKEN = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "new bsd": "BSD-3-Clause",
    "psfl": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
    "the unlicense (unlicense)": "Unlicense",
    "zlib/libpng license": "Zlib",
}
"""Classifiers and common texts of the field `License`, as SPDX identifiers."""

NO_LICENCE = ("OSI Approved", "DFSG approved")
"""Classifiers that do not say which licence it is."""


@dataclass(frozen=True, slots=True)
class Reviewed:
    """Somebody has read what the metadata cannot say. Holds while the metadata says `licence`."""

    licence: str
    reason: str


REVIEWED = {
    "pypdfium2": Reviewed(
        "BSD-3-Clause, Apache-2.0, dependency licenses",
        "no SPDX expression; its wheels carry PDFium and what that is built from, all of them permissive",
    ),
}


def normal(name: str) -> str:
    """The name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def stated(distribution: Distribution) -> str:
    """What the metadata says, as an SPDX expression where it can be read as one; "" if it says nothing."""
    metadata = distribution.metadata
    if expression := "".join(metadata.get_all("License-Expression", [])):
        return expression
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in metadata.get_all("Classifier", [])
        if text.startswith("License ::")
    ]
    spoken = [text for text in classifiers if text not in NO_LICENCE]
    if spoken:
        return " AND ".join(f"({SPOKEN.get(text.lower(), text)})" for text in spoken)
    text = "".join(metadata.get_all("License", [])).strip()
    return SPOKEN.get(text.lower(), text)


def allowed(expression: str, licences: frozenset[str]) -> bool:
    """Whether one may choose among `expression` (SPDX: AND, OR, WITH, parentheses) only of `licences`."""
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    try:
        answer, rest = _either(tokens, licences)
    except IndexError:
        return False
    return answer and not rest


def _either(tokens: list[str], licences: frozenset[str]) -> tuple[bool, list[str]]:
    answer, rest = _both(tokens, licences)
    while rest and rest[0].upper() == "OR":
        other, rest = _both(rest[1:], licences)
        answer = answer or other
    return answer, rest


def _both(tokens: list[str], licences: frozenset[str]) -> tuple[bool, list[str]]:
    answer, rest = _one(tokens, licences)
    while rest and rest[0].upper() == "AND":
        other, rest = _one(rest[1:], licences)
        answer = answer and other
    return answer, rest


def _one(tokens: list[str], licences: frozenset[str]) -> tuple[bool, list[str]]:
    if tokens[0] == "(":
        answer, rest = _either(tokens[1:], licences)
        if rest[0] != ")":
            raise IndexError("a parenthesis is open")
        return answer, rest[1:]
    answer, rest = tokens[0] in licences, tokens[1:]
    if rest and rest[0].upper() == "WITH":
        rest = rest[2:]  # an exception only adds permissions
    return answer, rest


def check(installed: Iterable[Distribution], runtime: frozenset[str]) -> Iterator[str]:
    """What is wrong, distribution by distribution; `runtime` names those that the product needs."""
    for distribution in sorted(installed, key=lambda found: normal(found.name)):
        name, licence = normal(distribution.name), stated(distribution)
        licences = PERMISSIVE if name in runtime else PERMISSIVE | TOOLS_ONLY
        reviewed = REVIEWED.get(name)
        if allowed(licence, licences):
            if reviewed is not None:
                yield f"{name}: {licence!r} needs no exception any more: remove it from REVIEWED"
        elif reviewed is None or reviewed.licence != licence:
            use = "the product needs it" if name in runtime else "a tool of development"
            yield (
                f"{name}: its licence is {licence or 'not stated'!r}, which is not on the list ({use}): "
                "replace the package, or read the licence and add it with the reason to REVIEWED in "
                "scripts/licences.py"
            )


def needed(requirements: str) -> frozenset[str]:
    """The names that a `requirements.txt` pins."""
    return frozenset(normal(name) for name in re.findall(r"(?m)^([A-Za-z0-9][\w.-]*)", requirements))


def main() -> int:
    runtime = needed((BACKEND / "requirements.txt").read_text())
    wrong = list(check(distributions(), runtime))
    print("\n".join(wrong), end="\n" if wrong else "")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
