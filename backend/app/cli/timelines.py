"""`orrery runs timeline` and `checkpoints`: what each node of a run read, did and gave, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from app.cli.client import Client, segment

_SHOWN = 200


def timeline_of(client: Client, run_id: str) -> dict[str, Any]:
    """All `items`, part by part, and why some of them lack values, if they do."""
    items: list[dict[str, Any]] = []
    after: int | None = 0
    incomplete = None
    while after is not None:
        part = client.get(f"/runs/{segment(run_id)}/timeline", after=after, limit=1000)
        items += part["items"]
        after, incomplete = part["next"], part["incomplete"]
    return {"items": items, "incomplete": incomplete}


def checkpoints_of(client: Client, run_id: str) -> Iterator[dict[str, Any]]:
    """Page by page."""
    cursor: dict[str, str] = {}
    while True:
        page = client.get(f"/runs/{segment(run_id)}/checkpoints", limit=200, **cursor)
        yield from page["items"]
        if not page["next_cursor"]:
            return
        cursor = {"cursor": page["next_cursor"]}


def show_entry(console: Console, entry: Mapping[str, Any], *, values: bool) -> None:
    """One line per node, retry and call; with `values` also what was read and given."""
    took = "" if entry["duration_ms"] is None else f"  {entry['duration_ms']:.0f} ms"
    usage = entry["usage"]
    tokens = f"  {usage['input_tokens']}+{usage['output_tokens']} tokens" if usage else ""
    again = f"  {entry['attempts']} attempts" if entry["attempts"] > 1 else ""
    source = "  cached" if entry["cached"] else f"  from {entry['taken_from']}" if entry["taken_from"] else ""
    way = f" → {entry['handle']}" if entry["handle"] not in (None, "out") else ""
    head = f"{entry['node_path']} ({entry['node_type']})"
    _print(console, f"{head}  {entry['status']}{way}{took}{tokens}{again}{source}")
    for retry in entry["retries"]:
        _print(console, f"    retry: {retry['error']['code']}: {retry['error']['message']}")
    for call in entry["calls"]:
        output = call["output"] or {}
        said = f" {output['name']}({_short(output['arguments'])})" if "name" in output else ""
        why = f"  {call['error']['code']}: {call['error']['message']}" if call["error"] else ""
        _print(console, f"    call {call['call']} {call['node_type']}{said}  {call['status']}{why}")
    if entry["error"]:
        _print(console, f"    {entry['error']['code']}: {entry['error']['message']}")
    if values:
        for name, value in (entry["inputs"] or {}).items():
            _print(console, f"    < {name} = {_short(value)}")
        for name, value in (entry["output"] or {}).items():
            _print(console, f"    > {name} = {_short(value)}")


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
