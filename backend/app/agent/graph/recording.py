"""What is kept of a run, as far as it is needed to do it again: its events in order, and its journal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.agent.core.interfaces import StepKey, StepRecord, Usage

_BY_THE_PROCESS = frozenset({"run.suspended", "run.resumed", "run.continued"})
_IDS = frozenset({"runId", "threadId", "messageId", "message_id", "parentMessageId", "interrupt_id"})
_PASSING = _IDS | {"timestamp", "duration_ms", "delay_ms", "cached", "taken_from"}
"""What may be different when the same is done again."""
_SHOWN = 300
_TEXT = "TEXT_MESSAGE_CONTENT"


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """`body` is the AG-UI event as it is stored; `at_ms` when that was (since the Unix epoch)."""

    node_path: str
    type: str
    body: Mapping[str, Any]
    at_ms: int = 0

    @classmethod
    def of(cls, event: Any, node_path: str) -> RecordedEvent:
        """`event` is an AG-UI event, or one that is recorded already."""
        if isinstance(event, RecordedEvent):
            return event
        body = event.model_dump(mode="json", by_alias=True, exclude_none=True)
        return cls(node_path, body["type"], body)

    @property
    def name(self) -> str:
        """Of a CUSTOM event its name, of others the type."""
        return str(self.body.get("name", self.type))

    @property
    def delta(self) -> str:
        return str(self.body.get("delta", ""))

    def starts(self, other: RecordedEvent) -> bool:
        """Whether it is text, and that of `other` begins with it and goes on."""
        texts = self.type == other.type == _TEXT
        return texts and len(self.delta) < len(other.delta) and other.delta.startswith(self.delta)

    def without(self, begin: RecordedEvent) -> RecordedEvent:
        """The rest of a text."""
        return replace(self, body={**self.body, "delta": self.delta.removeprefix(begin.delta)})

    def after(self, begin: str) -> RecordedEvent:
        """A text together with what was told of it before."""
        return replace(self, body={**self.body, "delta": begin + self.delta}) if begin else self

    @property
    def begins_a_node(self) -> bool:
        return self.name == "node.started"

    @property
    def ends_a_node(self) -> bool:
        return self.name == "node.finished"

    def renamed(self, rename: Callable[[str], str]) -> RecordedEvent:
        """With other ids."""
        return replace(self, body=_renamed(self.body, rename))


@dataclass(frozen=True, slots=True)
class Recording:
    """The events of one run in order, its journal, and what its model calls used.

    `inside` has the paths of nodes below a path.
    """

    steps: Mapping[StepKey, StepRecord]
    events: Sequence[RecordedEvent]
    usage: Mapping[str, Usage] = field(default_factory=dict)
    inside: Mapping[str, Sequence[str]] = field(init=False)
    called: frozenset[str] = field(init=False)
    timed_out: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        inside: dict[str, list[str]] = {}
        for path in dict.fromkeys(event.node_path for event in self.events):
            for place in _slashes(path):
                inside.setdefault(path[:place], []).append(path)
        object.__setattr__(self, "inside", inside)
        object.__setattr__(self, "called", frozenset(path for path, _, call in self.steps if call))
        object.__setattr__(self, "timed_out", frozenset(self._timed_out()))

    def _timed_out(self) -> Iterator[str]:
        for event in self.events:
            value = event.body.get("value")
            error = value.get("error") if isinstance(value, dict) else None
            if event.name in ("node.finished", "retry") and error and error["code"] == "timeout":
                yield event.node_path

    @property
    def failed(self) -> bool:
        return bool(self.events) and self.events[-1].type == "RUN_ERROR"

    def shows_inside_of(self, path: str) -> bool:
        """Whether what was done inside of the node was recorded as that of nodes, and came to its end."""
        return path in self.inside and path not in self.called and path not in self.timed_out


def is_told_by_the_process(event: RecordedEvent) -> bool:
    """Whether it is no doing of the engine: the run was left, or taken up again."""
    return event.node_path == "" and event.name in _BY_THE_PROCESS


def lost_tries(events: Sequence[RecordedEvent]) -> frozenset[int]:
    """Places of what a process told of a node that it did not bring to its end: another told it again."""
    lost: set[int] = set()
    begun: dict[str, list[int]] = {}
    dead: dict[str, list[int]] = {}
    for index, event in enumerate(events):
        path = event.node_path
        match event.name:
            case "run.continued":
                for name, places in begun.items():
                    dead.setdefault(name, []).extend(places)
                begun.clear()
            case "node.started":
                lost.update(dead.pop(path, ()))
                begun[path] = [index]
            case "node.finished":
                begun.pop(path, None)
            case _ if path in dead:
                dead[path].append(index)
            case _ if path in begun:
                begun[path].append(index)
    return frozenset(lost)


def same(one: RecordedEvent, other: RecordedEvent) -> bool:
    """Whether both tell the same, ids and times apart."""
    return one.type == other.type and _lasting(one.body) == _lasting(other.body)


def difference(recorded: RecordedEvent, now: RecordedEvent) -> str:
    """What is different about two events, for people: the first value that is, where they are of one kind."""
    if recorded.name != now.name:
        return f"recorded {in_short(recorded)}; now {in_short(now)}"
    place, then, instead = _first_difference(_lasting(recorded.body), _lasting(now.body), "")
    where = f" of node {now.node_path!r}" if now.node_path else ""
    return f"{now.name}{where}, {place}: recorded {_shown(then)}; now {_shown(instead)}"


def _first_difference(one: Any, other: Any, place: str) -> tuple[str, Any, Any]:
    """Where (a JSON pointer) two values that are not equal begin to differ."""
    pairs: list[tuple[Any, Any, Any]] = []
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = [(name, one.get(name), other.get(name)) for name in dict.fromkeys([*one, *other])]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(index, *both) for index, both in enumerate(zip(one, other, strict=True))]
    for name, then, now in pairs:
        if then != now:
            return _first_difference(then, now, f"{place}/{name}")
    return place, one, other


def _shown(value: Any) -> str:
    said = json.dumps(value, ensure_ascii=False)
    return said if len(said) <= _SHOWN else said[:_SHOWN] + "…"


def in_short(event: RecordedEvent) -> str:
    """An event for people."""
    where = f" of node {event.node_path!r}" if event.node_path else ""
    told = {name: item for name, item in event.body.items() if name != "type"}
    return f"{event.name}{where} {_shown(_lasting(event.body.get('value') or told))}"


def _lasting(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _lasting(item) if name == "value" and isinstance(item, dict) else item
        for name, item in body.items()
        if name not in _PASSING
    }


def _renamed(body: Mapping[str, Any], rename: Callable[[str], str]) -> dict[str, Any]:
    renamed = dict(body)
    for name, item in body.items():
        if name in _IDS and isinstance(item, str):
            renamed[name] = rename(item)
        elif name == "value" and isinstance(item, dict):
            renamed[name] = _renamed(item, rename)
    return renamed


def _slashes(path: str) -> Iterator[int]:
    return (place for place, character in enumerate(path) if character == "/")
