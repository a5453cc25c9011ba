"""An agent with everything that waits, repeats and runs side by side, and what must come of its runs."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx2

from tests.trust.runs.agents import published
from tests.trust.runs.effects import receipt

ROUNDS = 3
QUICK_S = 0.6
"""How long a person has for the quick question."""
_RETRY = {"max_attempts": 3, "backoff": "constant", "initial_s": 0.05, "jitter": False}
_ORDER = {"order": "{{ inputs.order }}"}
_FORM = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}


def drawn(lots: random.Random) -> dict[str, Any]:
    """The input of a run besides its order."""
    items = [{"name": f"item {n}", "refuse": "never", "nap_s": 0} for n in range(lots.randint(2, 4))]
    lots.choice(items)["refuse"] = "always"
    reviewers = [
        {"name": f"reviewer {n}", "refuse": "never", "nap_s": round(lots.uniform(0, 0.8), 3)}
        for n in range(lots.randint(1, 2))
    ]
    return {"items": items, "reviewers": reviewers, "nap_s": round(lots.uniform(0, 0.8), 3)}


def ship(client: httpx2.Client, url: str, name: str) -> str:
    """Publishes the agent and its sub-agent; their effects are at `url`."""
    courier = published(client, f"{name}-courier", _courier(url))
    return published(client, name, _shipment(url, courier))


def _courier(url: str) -> dict[str, Any]:
    """Fails at first. Asks a person and keeps a time."""
    return {
        "schema_version": "1",
        "inputs": _object(order="string", nap_s="number"),
        "nodes": [
            {"id": "start", "type": "start"},
            _pause("{{ inputs.nap_s }}"),
            _call(url, "book", "{{ inputs.order }}", refuse="once"),
            _ask("Deliver {{ inputs.order }}?"),
            _call(url, "close", "{{ book.body.receipt }} {{ ask.data.amount }}"),
            _end(receipt="{{ close.body.receipt }}"),
        ],
        "edges": _edges("start > pause > close > done", "start > book > ask > close"),
    }


def _shipment(url: str, courier: str) -> dict[str, Any]:
    paid = "{{ charge.body.receipt }} {{ rounds.last.receipt }}"
    judged = "{{ granted.body.receipt ?? denied.body.receipt }} {{ kept.body.receipt ?? late.body.receipt }}"
    return {
        "schema_version": "1",
        "inputs": _object(order="string", items="array", reviewers="array", nap_s="number"),
        "interface": {"message": "order", "answer": "receipt"},
        "state": {"notes": {"type": "array", "reducer": "append", "initial": []}},
        "bindings": {"agents": {"courier": courier}},
        "nodes": [
            {"id": "start", "type": "start"},
            _note("begun", "{{ inputs.order }}"),
            _inside("each", "map", _picking(url),
                    items="{{ inputs.items }}", on_item_error="collect", concurrency=3),
            _inside("rounds", "loop", _turning(url),
                    repeat_while=f"{{{{ loop.index }}}} < {ROUNDS}",
                    initial={"receipt": "{{ inputs.order }}"}),
            _call(url, "charge", "{{ inputs.order }}", refuse="once", retry=_RETRY),
            _note("charged", "{{ charge.body.receipt }}"),
            {"id": "nap", "type": "wait", "config": {"for_s": "{{ inputs.nap_s }}"}},
            {"id": "deliver", "type": "subagent", "retry": _RETRY,
             "config": {"agent": "courier", "inputs": {**_ORDER, "nap_s": "{{ inputs.nap_s }}"}}},
            _ask("Ship {{ inputs.order }}?", "approve", choices=["yes", "no"]),
            _call(url, "granted", "{{ approve.data.amount }}"),
            _call(url, "denied", "{{ approve.data.amount }}"),
            _note("judged", "{{ approve.choice }}"),
            _ask("Quick!", "quick", answer_within_s=QUICK_S),
            _call(url, "kept", "{{ quick.data.amount }}"),
            _call(url, "late", "{{ inputs.order }}"),
            _inside("reviews", "map", _reviewing(url), items="{{ inputs.reviewers }}"),
            _call(url, "settle", f"{paid} {judged}"),
            _end(receipt="{{ settle.body.receipt }}", items="{{ each.results }}", errors="{{ each.errors }}",
                 rounds="{{ rounds.rounds }}", delivered="{{ deliver.output }}",
                 reviews="{{ reviews.results }}", notes="{{ state.notes }}"),
        ],
        "edges": _edges(
            "start > begun > each > rounds > settle > done",
            "begun > charge > charged > nap > deliver > settle",
            "begun > approve.yes > granted > judged > settle",
            "approve.no > denied > judged",
            "begun > quick > kept > settle",
            "quick.timeout > late > settle",
            "begun > reviews > settle",
        ),
    }  # fmt: skip


def _picking(url: str) -> dict[str, Any]:
    nodes = [
        _call(url, "pick", "{{ item.name }}", per=True),
        _call(url, "label", "{{ item.name }}", per=True),
        _call(
            url, "weigh", "{{ pick.body.receipt }} {{ label.body.receipt }}", "{{ item.refuse }}", per=True
        ),
    ]
    ways = _edges("start > pick > weigh > done", "start > label > weigh")
    return _inner(nodes, ways, weight="{{ weigh.body.receipt }}")


def _turning(url: str) -> dict[str, Any]:
    turn = _call(url, "turn", "{{ loop.previous.receipt }}", per=True)
    return _inner([turn], _edges("start > turn > done"), receipt="{{ turn.body.receipt }}")


def _reviewing(url: str) -> dict[str, Any]:
    """A person and a time for each item."""
    nodes = [
        _pause("{{ item.nap_s }}"),
        _ask("What says {{ item.name }}?"),
        _call(url, "file", "{{ item.name }} {{ ask.data.amount }}", per=True),
    ]
    ways = _edges("start > pause > file > done", "start > ask > file")
    return _inner(nodes, ways, receipt="{{ file.body.receipt }}")


def _object(**types: str) -> dict[str, Any]:
    properties = {name: {"type": kind} for name, kind in types.items()}
    return {"type": "object", "properties": properties, "required": list(types)}


def _edges(*chains: str) -> list[dict[str, str]]:
    """Of chains such as `ask.yes > pay > done`: a handle is that of the edge which follows."""
    edges = []
    for chain in chains:
        for one, other in pairwise(chain.split(" > ")):
            source, _, handle = one.partition(".")
            edges.append(
                {"source": source, "target": other.partition(".")[0]} | ({"handle": handle} if handle else {})
            )
    return edges


def _call(
    url: str, step: str, before: str, refuse: str = "never", *, per: bool = False, **policies: Any
) -> dict[str, Any]:
    """An effect named `step`, with `per` one of each item or round."""
    place = f"{url}/{{{{ inputs.order }}}}/{step}" + ("-{{ loop.index }}" if per else "")
    body = {"json": {"before": before, "refuse": refuse}}
    return {"id": step, "type": "http", "config": {"method": "POST", "url": place, "body": body}, **policies}


def _note(name: str, value: str) -> dict[str, Any]:
    return {"id": name, "type": "set_state", "config": {"values": {"notes": value}}}


def _pause(for_s: str) -> dict[str, Any]:
    return {"id": "pause", "type": "wait", "config": {"for_s": for_s}}


def _ask(message: str, name: str = "ask", **config: Any) -> dict[str, Any]:
    return {"id": name, "type": "human", "config": {"message": message, "form": _FORM, **config}}


def _end(**output: str) -> dict[str, Any]:
    return {"id": "done", "type": "end", "config": {"output": output}}


def _inside(name: str, kind: str, graph: Any, **config: Any) -> dict[str, Any]:
    return {"id": name, "type": kind, "config": {"graph": graph, "inputs": _ORDER, **config}}


def _inner(nodes: Sequence[Any], edges: Any, **output: str) -> dict[str, Any]:
    return {
        "inputs": _object(order="string"),
        "nodes": [{"id": "start", "type": "start"}, *nodes, _end(**output)],
        "edges": edges,
    }


@dataclass(frozen=True, slots=True)
class Given:
    """The answer to a question."""

    choice: str | None
    amount: int


@dataclass(slots=True)
class Undisturbed:
    """What comes of a run if nothing happens to it: worked out step by step from what it was given.

    `answers` are by node path; a question without one was left by its time-out. `bodies` are of the calls at
    `url` that have an effect, `refused` those that have none.
    """

    url: str
    order: str
    input: Mapping[str, Any]
    answers: Mapping[str, Given]
    bodies: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    def output(self) -> dict[str, Any]:
        charge = self._call("charge", self.order, "once")
        approved = self.answers["approve"]
        judged = self._call("granted" if approved.choice == "yes" else "denied", approved.amount)
        quick = self.answers.get("quick")
        in_time = self._call("kept", quick.amount) if quick else self._call("late", self.order)
        weights = [self._weight(index, item) for index, item in enumerate(self.input["items"])]
        rounds = self._rounds()
        return {
            "receipt": self._call("settle", f"{charge} {rounds} {judged} {in_time}"),
            "items": weights,
            "errors": [self._error(index) for index, weight in enumerate(weights) if weight is None],
            "rounds": ROUNDS,
            "delivered": self._delivered(),
            "reviews": [self._review(index, item) for index, item in enumerate(self.input["reviewers"])],
            "notes": [self.order, charge, approved.choice],
        }

    def _weight(self, index: int, item: Mapping[str, Any]) -> dict[str, str] | None:
        pick, label = (self._call(f"{step}-{index}", item["name"]) for step in ("pick", "label"))
        weight = self._call(f"weigh-{index}", f"{pick} {label}", item["refuse"])
        return {"weight": weight} if item["refuse"] == "never" else None

    def _error(self, index: int) -> dict[str, Any]:
        place = f"{self.url.removeprefix('http://')}/{self.order}/weigh-{index}"
        message = f"""POST to '{place}' was answered 422: {{"error": "refused"}}"""
        return {"index": index, "code": "http_status", "message": message}

    def _rounds(self) -> str:
        previous = self.order
        for index in range(ROUNDS):
            previous = self._call(f"turn-{index}", previous)
        return previous

    def _delivered(self) -> dict[str, str]:
        book = self._call("book", self.order, "once")
        return {"receipt": self._call("close", f"{book} {self.answers['deliver/ask'].amount}")}

    def _review(self, index: int, item: Mapping[str, Any]) -> dict[str, str]:
        said = self.answers[f"reviews/{index}/ask"].amount
        return {"receipt": self._call(f"file-{index}", f"{item['name']} {said}")}

    def _call(self, step: str, before: str | int, refuse: str = "never") -> str:
        """The receipt of a call."""
        body = json.dumps({"before": before, "refuse": refuse}, separators=(",", ":"))
        if refuse == "always":
            self.refused.add(step)
        else:
            self.bodies[step] = body
        return receipt(step, body.encode())
