"""What runs ask people, for a terminal; and the question that the beginning of an id means."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from app.cli.client import Client
from app.core.errors import BadRequest, NotFound

_LEAST_LENGTH = 6


def open_questions(client: Client, **wanted: str) -> Iterator[dict[str, Any]]:
    """Those that wait for an answer, the newest first."""
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/interrupts", status="open", limit=200, **wanted, **cursor)
        yield from page["items"]
        if not page["next_cursor"]:
            return
        cursor = {"cursor": page["next_cursor"]}


def show_question(console: Console, asked: Mapping[str, Any]) -> None:
    """The question, where it comes from, and all that an answer may need."""
    facts = {
        "run": f"{asked['run_id']}, node {asked['node_path']}",
        "for": asked["assignee"],
        "until": asked["due_at"],
        "choices": " | ".join(asked["choices"] or []),
        "proposed": json.dumps(asked["prefill"], ensure_ascii=False) if asked["prefill"] else None,
        "form": json.dumps(asked["form"], ensure_ascii=False) if asked["form"] else None,
    }
    console.print(f"{asked['id']}  {asked['message']}", markup=False, soft_wrap=True)
    for name, said in facts.items():
        if said:
            console.print(f"    {name}: {said}", markup=False, soft_wrap=True)


def question_named(client: Client, name: str) -> dict[str, Any]:
    """The open question whose id is `name`, or begins so. Raises `BadRequest` where several do."""
    beginning = name.strip().lower()
    if len(beginning) < _LEAST_LENGTH:
        message = f"at least {_LEAST_LENGTH} characters that begin one (`orrery inbox` shows them)"
        raise BadRequest(f"QUESTION is {name!r}: it is a question's id, or {message}.")
    found = [asked for asked in open_questions(client) if asked["id"].startswith(beginning)]
    if not found:
        raise NotFound(f"QUESTION is {name!r}: nothing that is open begins so (`orrery inbox` shows it).")
    if len(found) > 1:
        ids = ", ".join(asked["id"] for asked in found[:10])
        raise BadRequest(f"QUESTION is {name!r}, which begins the ids of several: {ids}.")
    return found[0]


def data_of(text: str) -> dict[str, Any]:
    """Raises `BadRequest` for what is no JSON object."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise BadRequest(f"--data is {text[:60]!r}: that is no JSON ({error}).") from error
    if not isinstance(data, dict):
        raise BadRequest(f'--data is {text[:60]!r}: it takes a JSON object, such as {{"comment": "Fine."}}.')
    return data
