"""Agents put together by lot from everything a graph can do, whose runs are recorded."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Node = dict[str, Any]
NOTES = {"notes": {"type": "array", "reducer": "append", "initial": []}}


@dataclass(slots=True)
class Mixed:
    """A graph on its way. Blocks are chained: each begins at `last` and leaves one node as the next `last`.

    `url` is of a service whose calls have effects, `said` the value that the end will give.
    """

    lots: random.Random
    url: str
    nodes: list[Node] = field(default_factory=lambda: [{"id": "start", "type": "start"}])
    edges: list[dict[str, str]] = field(default_factory=list)
    last: str = "start"
    said: str = "inputs.name"

    def document(self, *, fails: bool) -> dict[str, Any]:
        blocks: list[Callable[[str], None]] = [
            *(self.ask, self.effect, self.items, self.rounds, self.agent, self.person, self.nap),
            *(self.ways, self.race, self.side_by_side, self.caught, self.note, self.compute),
            self.waiting_beside_work,
        ]
        chosen = self.lots.sample(blocks, self.lots.randint(4, 7))
        if fails:
            chosen.append(self.broken)
        for number, block in enumerate(chosen):
            block(f"b{number}")
        self.chain({"id": "done", "type": "end", "config": {"output": {"said": f"{{{{ {self.said} }}}}"}}})
        return {
            "schema_version": "1",
            "inputs": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
            "interface": {"message": "name", "answer": "said"},
            "state": NOTES,
            "bindings": {"models": {"main": "default-chat"}, "agents": {"helper": "helper"}},
            "nodes": self.nodes,
            "edges": self.edges,
        }

    def chain(self, *nodes: Node, handle: str = "") -> None:
        """Puts `nodes` after `last`, which is left by `handle`."""
        ids = [self.last, *(node["id"] for node in nodes)]
        for source, target in pairwise(ids):
            way = {"handle": handle} if handle and source == self.last else {}
            self.edges.append({"source": source, "target": target, **way})
        self.nodes += nodes
        self.last = ids[-1]

    def branches(self, name: str, *ways: tuple[str, Node], join: str = "all") -> None:
        """Side by side from `last`, each by its handle, and together again in a template."""
        source, ends = self.last, []
        for handle, node in ways:
            self.last = source
            self.chain(node, handle=handle)
            ends.append(node["id"])
        together = {"id": f"{name}_join", "type": "template", "config": {"text": name}, "join": join}
        self.nodes.append(together)
        self.edges += [{"source": end, "target": together["id"]} for end in ends]
        self.last = together["id"]

    def ask(self, name: str) -> None:
        words = self.lots.randint(1, 12)
        prompt = [{"role": "user", "content": f"{words} 0.005"}]
        self.chain({"id": name, "type": "llm", "config": {"model": "main", "prompt": prompt}})
        self.said = f"{name}.text"

    def call(self, name: str, place: str = "") -> Node:
        """An effect."""
        url = f"{self.url}/{{{{ inputs.name }}}}/{name}{place}"
        return {"id": name, "type": "http", "config": {"method": "POST", "url": url, "body": {"json": {}}}}

    def effect(self, name: str) -> None:
        self.chain(self.call(name))
        self.said = f"{name}.body.receipt"

    def items(self, name: str) -> None:
        """A map; an item fails where the lot says so, and is collected."""
        divide = {"values": {"n": "10 // (len({{ item }}) - 2)"}}
        body = _inside(
            self.call(f"{name}_item", "-{{ loop.index }}"),
            {"id": "divide", "type": "transform", "config": divide},
            output={"n": "{{ divide.n }}"},
        )
        items = self.lots.sample(["a", "bb", "ccc", "dddd"], 3)
        self.chain(
            {"id": f"{name}_list", "type": "transform", "config": {"values": {"items": repr(items)}}},
            {
                "id": name,
                "type": "map",
                "config": {
                    "items": f"{{{{ {name}_list.items }}}}",
                    "graph": body,
                    "inputs": {"name": "{{ inputs.name }}"},
                    "on_item_error": "collect",
                },
            },
        )
        self.said = f"{name}.errors"

    def rounds(self, name: str) -> None:
        body = _inside(self.call(f"{name}_round", "-{{ loop.index }}"), output={"n": "{{ loop.index }}"})
        config = {
            "repeat_while": f"{{{{ loop.index }}}} < {self.lots.randint(1, 3)}",
            "graph": body,
            "inputs": {"name": "{{ inputs.name }}"},
        }
        self.chain({"id": name, "type": "loop", "config": config})

    def agent(self, name: str) -> None:
        self.chain({"id": name, "type": "subagent", "config": {"agent": "helper", "inputs": {"name": "3 0"}}})
        self.said = f"{name}.answer"

    def person(self, name: str) -> None:
        form = {"type": "object", "properties": {"why": {"type": "string"}}}
        self.chain({"id": name, "type": "human", "config": {"message": "Well?", "form": form}})
        self.said = f"{name}.data.why"

    def nap(self, name: str) -> None:
        self.chain({"id": name, "type": "wait", "config": {"for_s": 0.2}})

    def ways(self, name: str) -> None:
        when = self.lots.choice(["len({{ inputs.name }}) > 3", "len({{ inputs.name }}) < 3"])
        branches = [{"handle": "long", "when": when}]
        self.chain({"id": name, "type": "condition", "config": {"branches": branches}})
        short = {"id": f"{name}_b", "type": "template", "config": {"text": "short"}}
        self.branches(name, ("long", self.call(f"{name}_a")), ("else", short))

    def race(self, name: str) -> None:
        self.branches(name, *(("", self.call(f"{name}_{way}")) for way in "ab"), join="any")

    def side_by_side(self, name: str) -> None:
        prompt = [{"role": "user", "content": "4 0.01"}]
        talk = {"id": f"{name}_b", "type": "llm", "config": {"model": "main", "prompt": prompt}}
        self.branches(name, ("", self.call(f"{name}_a")), ("", talk))

    def waiting_beside_work(self, name: str) -> None:
        """Items that wait and go on, once or twice, while a model talks."""
        nap = {"id": f"{name}_nap", "type": "wait", "config": {"for_s": 0.05}}
        body = _inside(nap, self.call(f"{name}_item", "-{{ loop.index }}"), output={"n": "{{ loop.index }}"})
        config = {
            "items": f"{{{{ {name}_list.items }}}}",
            "graph": body,
            "inputs": {"name": "{{ inputs.name }}"},
            "concurrency": self.lots.randint(1, 3),
        }
        items = {"values": {"items": "['a', 'b', 'c']"}}
        self.chain({"id": f"{name}_list", "type": "transform", "config": items})
        prompt = [{"role": "user", "content": f"{self.lots.randint(5, 40)} 0.02"}]
        talk = {"id": f"{name}_b", "type": "llm", "config": {"model": "main", "prompt": prompt}}
        self.branches(name, ("", {"id": f"{name}_a", "type": "map", "config": config}), ("", talk))

    def caught(self, name: str) -> None:
        """What fails, after another attempt, and is handled."""
        failing = self.call(name)
        failing["config"]["url"] = "http://127.0.0.1:9"
        failing["retry"] = {"max_attempts": 2, "initial_s": 0.01}
        text = f'{{{{ {name}.error.code ?? "none" }}}}'
        sorry = {"id": f"{name}_sorry", "type": "template", "config": {"text": text}}
        self.chain(failing, sorry)
        self.edges.append({"source": name, "handle": "error", "target": sorry["id"]})
        self.said = f"{name}_sorry.text"

    def broken(self, name: str) -> None:
        """What fails the run."""
        self.chain({"id": name, "type": "transform", "config": {"values": {"n": "1 // 0"}}})

    def note(self, name: str) -> None:
        values = {"notes": f"{{{{ {self.said} }}}}"}
        self.chain({"id": name, "type": "set_state", "config": {"values": values}})
        self.said = "state.notes"

    def compute(self, name: str) -> None:
        inputs = {"text": "{{ inputs.name }}"}
        config = {"inputs": inputs, "code": "size = len(text)", "outputs": {"size": "integer"}}
        self.chain({"id": name, "type": "code", "config": config})
        self.said = f"{name}.size"


def _inside(*nodes: Node, output: dict[str, Any]) -> dict[str, Any]:
    parts = [
        {"id": "start", "type": "start"},
        *nodes,
        {"id": "end", "type": "end", "config": {"output": output}},
    ]
    edges = [{"source": a["id"], "target": b["id"]} for a, b in pairwise(parts)]
    inputs = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    return {"inputs": inputs, "nodes": parts, "edges": edges}
