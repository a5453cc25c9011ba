"""The arguments of a call as templates see them: `{{ arguments.city }}`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.agent.core.base import Mistake
from app.agent.graph.config_fields import uses_in_raw
from app.agent.graph.issues import listing
from app.agent.graph.references import Chain

SOURCE = "arguments"


@dataclass(frozen=True, slots=True)
class Arguments:
    """A `Lookup` in which an argument that was not given is null."""

    values: Mapping[str, Any]

    def value(self, chain: Chain) -> Any:
        for reference in chain.references:
            if (value := self._find(reference.path)) is not None:
                return value
        return chain.literal.value if chain.literal else None

    def _find(self, path: tuple[str, ...]) -> Any:
        here: Any = self.values
        for step in path:
            if isinstance(here, Mapping) and step in here:
                here = here[step]
            elif isinstance(here, list) and step.isdigit() and int(step) < len(here):
                here = here[int(step)]
            else:
                return None
        return here


def reference_mistakes(raw: Mapping[str, Any], parameters: Mapping[str, Any]) -> Iterator[Mistake]:
    """References in `raw` that lead to no parameter."""
    declared = parameters.get("properties")
    names = sorted(declared) if isinstance(declared, Mapping) else []
    for use in uses_in_raw(raw):
        for chain in use.template.chains:
            for reference in chain.references:
                if reference.source != SOURCE or not reference.path:
                    fix = "write it as '{{ arguments.<name> }}'"
                    yield Mistake(use.path, f"'{reference}' is no argument of the tool", fix)
                elif reference.path[0] not in names:
                    fix = f"declare it in 'parameters'; declared: {listing(names) or 'none'}"
                    yield Mistake(use.path, f"'{reference}' is not among the tool's parameters", fix)
