"""`orrery inbox` and `orrery answer`, on a running platform."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.cli.conftest import Command
from tests.graphs import HELLO_GRAPH
from tests.trust.serving import Platform

FORM = {"type": "object", "properties": {"comment": {"type": "string"}}, "required": ["comment"]}


def asking() -> dict[str, Any]:
    asked = {"message": "Pay [red]Ada[/red]?", "choices": ["yes", "no"], "form": FORM}
    nodes = [
        {"id": "start", "type": "start"},
        {"id": "ask", "type": "human", "config": asked},
        {"id": "done", "type": "end", "config": {"output": {"said": "{{ ask.data.comment }}"}}},
    ]
    edges = [
        {"source": "start", "target": "ask"},
        *({"source": "ask", "handle": way, "target": "done"} for way in ("yes", "no")),
    ]
    return HELLO_GRAPH | {"interface": {}, "nodes": nodes, "edges": edges}


@pytest.fixture
def run(served: Platform) -> Iterator[dict[str, Any]]:
    """It asks; cancelled afterwards, so that nothing is open for others."""
    slug = f"asks-{uuid4().hex[:8]}"
    with served.client() as client:
        client.post("/agents", json={"name": "Asks", "slug": slug, "graph": asking()}).raise_for_status()
        body = {"input": {"name": "Ada"}, "version": "draft"}
        made = client.post(f"/agents/{slug}/runs", json=body).raise_for_status().json()
        assert made["status"] == "interrupted"
        yield made | {"slug": slug}
        client.post(f"/runs/{made['id']}/cancel?wait=true")


def test_shows_what_is_asked_and_takes_the_answer(
    command: Command, served: Platform, run: dict[str, Any]
) -> None:
    done = command(["inbox", "--agent", run["slug"]], served.data_dir)
    assert done.returncode == 0, done.stderr
    first, *facts = done.stdout.splitlines()
    question, message = first.split("  ", 1)
    assert message == "Pay [red]Ada[/red]?"
    assert f"    run: {run['id']}, node ask" in facts
    assert "    choices: yes | no" in facts
    answer = ["answer", question[:13], "--choice", "yes", "--data", '{"comment": "Fine."}']
    done = command(answer, served.data_dir)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"answered; to follow the run: orrery runs tail {run['id']}\n"
    followed = command(["runs", "tail", run["id"]], served.data_dir)
    assert 'succeeded {"said": "Fine."}' in followed.stdout
    assert f"to be answered by: orrery answer {question} --choice … --data …" in followed.stdout
    assert command(["inbox", "--agent", run["slug"]], served.data_dir).stdout == "nothing is asked\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--choice", "maybe", "--data", "{}"], "choose one of 'yes', 'no'"),
        (["--choice", "yes"], "'comment' is a required property"),
        (["--data", "[]"], "it takes a JSON object"),
        (["--data", "{"], "that is no JSON"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(
    command: Command, served: Platform, run: dict[str, Any], given: list[str], said: str
) -> None:
    found = json.loads(command(["inbox", "--agent", run["slug"], "--json"], served.data_dir).stdout)
    done = command(["answer", found[0]["id"], *given], served.data_dir)
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.parametrize(
    ("name", "said"), [("abc", "at least 6 characters"), ("0" * 8, "nothing that is open")]
)
def test_a_question_that_is_not_there(command: Command, served: Platform, name: str, said: str) -> None:
    done = command(["answer", name], served.data_dir)
    assert done.returncode == 1
    assert said in done.stderr
