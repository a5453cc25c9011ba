"""Showing a streamed answer: text as it comes, retries, citations, how it ended, and where the time went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.core.errors import AppError


@dataclass(slots=True)
class Answer:
    """What a streamed run told. `nodes` are the payloads of `node.finished`."""

    text: str = ""
    citations: list[dict[str, Any]] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] | None = None
    run_id: str = ""


class RunEndedBadly(AppError):
    """The run ended with an error; its code and message are the run's."""

    title = "Run failed"


def read_answer(events: Iterable[dict[str, Any]], *, show: Console | None = None) -> Answer:
    """Reads a run's events to the end, printing text as it comes; `RunEndedBadly` where it failed."""
    answer = Answer()
    for envelope in events:
        event = envelope["event"]
        answer.run_id = envelope["run_id"]
        if show:
            if event["type"] == "TEXT_MESSAGE_START" and answer.text:
                show.print()  # an agent says more than one thing; the last one is its answer
            _show(show, event)
        _take(answer, event)
    if show:
        show.print()
    return answer


def _show(console: Console, event: Mapping[str, Any]) -> None:
    match event["type"]:
        case "TEXT_MESSAGE_CONTENT":
            console.print(event["delta"], end="", markup=False, highlight=False, soft_wrap=True)
        case "CUSTOM" if event["name"] == "retry":
            show_retry(console, event["value"])
        case "CUSTOM" if event["name"] == "interrupt":
            _show_question(console, event["value"])


def _take(answer: Answer, event: dict[str, Any]) -> None:
    match event["type"]:
        case "TEXT_MESSAGE_START":
            answer.text = ""
        case "TEXT_MESSAGE_CONTENT":
            answer.text += event["delta"]
        case "CUSTOM" if event["name"] == "citation":
            answer.citations.append(event["value"])
        case "CUSTOM" if event["name"] == "node.finished":
            answer.nodes.append(event["value"])
        case "RUN_FINISHED":
            answer.result = event.get("result")
        case "RUN_ERROR":
            raise RunEndedBadly(event["message"], code=event.get("code") or "run_failed")


def _show_question(console: Console, asked: Mapping[str, Any]) -> None:
    console.print(f"? {asked['message']} (interrupt {asked['interrupt_id']})", markup=False, soft_wrap=True)
    console.print("It waits for the answer: POST /api/v1/runs/{run}/interrupts/{interrupt}", markup=False)


def show_retry(console: Console, retry: Mapping[str, Any]) -> None:
    console.print(
        f"[yellow]↻[/] {retry['node_id']}: attempt {retry['attempt']} in {retry['delay_ms']:.0f} ms, "
        f"after {reason_of(retry['error'])}",
        soft_wrap=True,
    )


def reason_of(error: Mapping[str, Any]) -> str:
    return f"{escape(error.get('code', ''))}: {escape(error.get('message', ''))}"


def ending_of(node: Mapping[str, Any]) -> str:
    """Why the node's model ended its answer, where it was not that all is said."""
    reason = node.get("finish_reason") or "stop"
    return "" if reason == "stop" else f"[yellow]finish_reason {escape(reason)}[/]"


def show_citations(console: Console, citations: Iterable[dict[str, Any]]) -> None:
    """One line per source: number, document, page, quote."""
    for citation in citations:
        page = f", page {citation['page']}" if citation.get("page") else ""
        quote = " ".join(citation["quote"].split())
        short = quote if len(quote) <= 100 else quote[:99] + "…"
        console.print(
            f"  [cyan]\\[{citation['index']}][/] {escape(citation['title'])}{page}: “{escape(short)}”",
            highlight=False,
        )


def show_times(console: Console, nodes: Iterable[dict[str, Any]]) -> None:
    table = Table(title="Where the time went", title_justify="left", box=None, pad_edge=False)
    table.add_column("node")
    table.add_column("type", style="dim")
    table.add_column("ms", justify="right")
    table.add_column()
    for node in nodes:
        table.add_row(node["node_id"], node["node_type"], f"{node['duration_ms']:.1f}", ending_of(node))
    console.print(table)
