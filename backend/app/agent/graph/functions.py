"""What the model of an `agent` node can call: tools, searches of collections and agents, as functions."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.agent.core.base import NodeError
from app.agent.core.calls import JournalledCall
from app.agent.core.interfaces import Passage, Tool, ToolDefinition, ToolEffect, ToolResult
from app.agent.core.scope import Scope

LONGEST_NAME = 64
_UNNAMEABLE = re.compile(r"[^A-Za-z0-9_-]+")
_QUERY = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "description": "What to look for", "minLength": 1, "maxLength": 2000}
    },
    "required": ["query"],
    "additionalProperties": False,
}
_CITE = (
    " Each passage has a number: after every statement that comes from one, write its number in square "
    "brackets, such as [3]."
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a call gave; `passages` that were found have the numbers by which they can be cited."""

    result: ToolResult
    passages: Mapping[int, Passage] = field(default_factory=dict)


Invoke = Callable[[JournalledCall, Mapping[str, Any], int], Awaitable[Reply]]
"""The call, its arguments, which fit, and the number of the first passage that it may find."""


@dataclass(frozen=True, slots=True)
class Function:
    """One of them. `own` is its name where it comes from, `binding` what the graph names that by.

    `found` is how many passages it finds at most; `asks`: whether a person must agree to each call.
    """

    definition: ToolDefinition
    own: str
    binding: str
    effect: ToolEffect
    invoke: Invoke
    asks: bool = False
    found: int = 0

    def is_called(self, name: str) -> bool:
        """Whether the author of a graph may mean it by `name`, whatever else is offered beside it."""
        return name in (self.definition.name, self.own, self.binding)


def of_tools(binding: str, tools: Iterable[Tool]) -> list[Function]:
    return [_of_tool(binding, tool) for tool in tools]


def _of_tool(binding: str, tool: Tool) -> Function:
    async def invoke(call: JournalledCall, arguments: Mapping[str, Any], _: int) -> Reply:
        key = call.idempotency_key([name, arguments]) if tool.effect == "write" else None
        return Reply(await tool.call(arguments, idempotency_key=key))

    name = tool.definition.name
    return Function(tool.definition, name, binding, tool.effect, invoke, asks=tool.needs_approval)


def of_collection(scope: Scope, binding: str, *, top_k: int, mode: str, cited: bool) -> Function:
    async def invoke(_: JournalledCall, arguments: Mapping[str, Any], first: int) -> Reply:
        found = await scope.search(binding, arguments["query"], top_k=top_k, mode=mode)
        numbered = dict(enumerate(found[:top_k], start=first))
        text = "\n\n".join(f"[{number}] {one.title}\n{one.text}" for number, one in numbered.items())
        return Reply(ToolResult(None, text or "Nothing was found."), numbered)

    description = f"Searches the documents of {binding!r} for passages.{_CITE if cited else ''}"
    definition = ToolDefinition(searching(binding), description, _QUERY)
    return Function(definition, definition.name, binding, "read", invoke, found=top_k)


def of_agent(binding: str, inputs: Mapping[str, Any]) -> Function:
    """`inputs` is the JSON Schema of what the agent takes."""

    async def invoke(call: JournalledCall, arguments: Mapping[str, Any], _: int) -> Reply:
        came = await call.agent(binding, arguments)
        text = json.dumps(came.output, ensure_ascii=False) if came.answer is None else came.answer
        return Reply(ToolResult(dict(came.output), text))

    parameters = {"type": "object", "properties": {}, **inputs}
    definition = ToolDefinition(binding, f"Hands a task to the agent {binding!r}.", parameters)
    # What it does outside is begun by its own nodes, each with a key of its own.
    return Function(definition, binding, binding, "read", invoke)


def searching(binding: str) -> str:
    """The tool that searches a collection."""
    return f"search_{binding}"


def named_apart(functions: Sequence[Function]) -> list[Function]:
    """With names that models take, each of them once."""
    names = shown_names([(one.binding, one.own) for one in functions])
    return [
        replace(one, definition=replace(one.definition, name=name))
        for one, name in zip(functions, names, strict=True)
    ]


def shown_names(own: Sequence[tuple[str, str]]) -> list[str]:
    """What models see, for each binding and name of its own.

    A name that several have is given with the binding before it, `crm_search`; where that is taken too, with
    a number behind.
    """
    plain = [_plain(name) for _, name in own]
    taken = {name for name in plain if plain.count(name) == 1}
    names: list[str] = []
    for (binding, _), name in zip(own, plain, strict=True):
        shown = name if name in taken else _free(_plain(f"{binding}_{name}"), taken | set(names))
        names.append(shown)
    return names


def described(functions: Sequence[Function], descriptions: Mapping[str, str]) -> list[Function]:
    """With the descriptions that the author of the graph gives, by any of their names."""
    found = []
    for one in functions:
        said = next((text for name, text in descriptions.items() if one.is_called(name)), None)
        found.append(
            one if said is None else replace(one, definition=replace(one.definition, description=said))
        )
    return found


def check_count(functions: Sequence[Function], most: int) -> None:
    """Raises `NodeError` (`too_large`)."""
    if len(functions) > most:
        message = f"the node offers its model {len(functions)} tools, and {most} is the most: bind fewer"
        raise NodeError(message, code="too_large")


def _plain(name: str) -> str:
    return _UNNAMEABLE.sub("_", name)[:LONGEST_NAME] or "tool"


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name[: LONGEST_NAME - 4]}_{number}"
    return free
