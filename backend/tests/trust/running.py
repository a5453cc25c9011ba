"""Runs over HTTP: one that takes a while, and its event log."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import httpx2

NODES = 12


def long_agent(client: httpx2.Client, collection: str) -> str:
    """A published agent that searches and answers many times in a row."""
    nodes: list[dict[str, Any]] = [{"id": "start", "type": "start"}]
    for number in range(NODES):
        search = {"collection": "kb", "query": "{{ inputs.question }}", "top_k": 20}
        prompt = [{"role": "user", "content": f"{{{{ inputs.question }}}} {number}"}]
        answer = {"model": "main", "prompt": prompt, "context": f"{{{{ s{number}.results }}}}"}
        nodes.append({"id": f"s{number}", "type": "retrieve", "config": search})
        nodes.append({"id": f"a{number}", "type": "llm", "config": answer})
    last = f"{{{{ a{NODES - 1}.text }}}}"
    nodes.append({"id": "done", "type": "end", "config": {"output": {"answer": last}}})
    graph = _graph(nodes, collection)
    agent = client.post("/agents", json={"name": "Long", "graph": graph}).raise_for_status().json()["slug"]
    client.post(f"/agents/{agent}/publish").raise_for_status()
    return str(agent)


def read_some(client: httpx2.Client, agent: str, *, count: int = 3) -> tuple[str, int]:
    """Starts a streamed run and reads `count` events; its id and the last `seq`."""
    body = {"input": {"question": "lantern harbour"}, "mode": "stream"}
    with client.stream("POST", f"/agents/{agent}/runs", json=body) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data:"):
                event = json.loads(line[5:])
                if event["seq"] == count:
                    return event["run_id"], event["seq"]
    raise AssertionError("the run was too short")


def events(client: httpx2.Client, run_id: str, *, after: int = 0) -> list[dict[str, Any]]:
    """The run's log to its end, as it is streamed."""
    with client.stream("GET", f"/runs/{run_id}/events", params={"after": after}) as response:
        return [json.loads(line[5:]) for line in response.iter_lines() if line.startswith("data:")]


def ended(client: httpx2.Client, run_id: str) -> dict[str, Any] | None:
    run: dict[str, Any] = client.get(f"/runs/{run_id}").raise_for_status().json()
    return run if run["finished_at"] else None


def short_agent(client: httpx2.Client, collection: str) -> httpx2.Response:
    """Makes and publishes `short-{collection}`, which searches once and answers once; repeatable."""
    search = {"collection": "kb", "query": "{{ inputs.question }}", "top_k": 3}
    prompt = [{"role": "user", "content": "{{ inputs.question }}"}]
    answer = {"model": "main", "prompt": prompt, "context": "{{ search.results }}"}
    nodes = [
        {"id": "start", "type": "start"},
        {"id": "search", "type": "retrieve", "config": search},
        {"id": "answer", "type": "llm", "config": answer},
        {"id": "done", "type": "end", "config": {"output": {"answer": "{{ answer.text }}"}}},
    ]
    slug = f"short-{collection}"
    made = client.post("/agents", json={"name": slug, "slug": slug, "graph": _graph(nodes, collection)})
    return client.post(f"/agents/{slug}/publish") if made.status_code in (201, 409) else made


def run_agent(client: httpx2.Client, agent: str) -> httpx2.Response:
    body = {"input": {"question": "lantern harbour"}, "mode": "wait"}
    return client.post(f"/agents/{agent}/runs", json=body)


def _graph(nodes: list[dict[str, Any]], collection: str) -> dict[str, Any]:
    return {
        "schema_version": "1",
        "inputs": {
            "type": "object",
            "properties": {"question": {"type": "string"}},
            "required": ["question"],
        },
        "interface": {"message": "question", "answer": "answer"},
        "bindings": {"models": {"main": "default-chat"}, "collections": {"kb": collection}},
        "nodes": nodes,
        "edges": [{"source": a["id"], "target": b["id"]} for a, b in pairwise(nodes)],
    }
