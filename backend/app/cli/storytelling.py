"""A run's events as lines for people: text as it comes, nodes, tool calls, retries, citations, the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape

from app.cli.answering import ending_of, reason_of, show_citations, show_retry

_TEXT = "TEXT_MESSAGE_CONTENT"
_LONGEST = 200
"""Characters of arguments and results that are told."""


@dataclass(slots=True)
class Story:
    """Prints one envelope after the other."""

    console: Console
    _amid_text: bool = False
    _calls: dict[str, str] = field(default_factory=dict)

    def tell(self, envelope: Mapping[str, Any]) -> None:
        event = envelope["event"]
        if event["type"].startswith("TOOL_CALL_"):
            self._tell_call(event)
            return
        if event["type"] == _TEXT:
            self.console.print(event["delta"], end="", markup=False, soft_wrap=True)
            self._amid_text = True
            return
        name = event["name"] if event["type"] == "CUSTOM" else event["type"]
        if told := _TOLD.get(name):
            self.break_line()
            told(self.console, event.get("value", event))

    def _tell_call(self, event: Mapping[str, Any]) -> None:
        """Tool calls are told once their arguments are whole: those of several may come in turns."""
        call = event["toolCallId"]
        match event["type"]:
            case "TOOL_CALL_START":
                self._calls[call] = f"{event['toolCallName']} "
            case "TOOL_CALL_ARGS":
                self._calls[call] = self._calls.get(call, "") + event["delta"]
            case "TOOL_CALL_END":
                self._line(f"[cyan]⚒[/] {_short(self._calls.pop(call, ''))}")
            case "TOOL_CALL_RESULT":
                self._line(f"  [dim]⤷ {_short(str(event['content']))}[/]")

    def _line(self, markup: str) -> None:
        self.break_line()
        self.console.print(markup, soft_wrap=True, highlight=False)

    def break_line(self) -> None:
        """Ends the line where text stands that may go on."""
        if self._amid_text:
            self.console.print()
            self._amid_text = False


def tell_end(console: Console, run: Mapping[str, Any]) -> None:
    """How a run ended of which no event is to come any more."""
    error = run["error"] or {}
    if run["status"] == "succeeded":
        _finished(console, {"result": run["output"]})
    else:
        _failed(console, {"code": error.get("code", run["status"]), "message": error.get("message", "")})


def _short(text: str) -> str:
    """In one line, to be printed as it is."""
    text = " ".join(text.split())
    return escape(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")


def _started(console: Console, event: Mapping[str, Any]) -> None:
    console.print(f"[dim]run {event['runId'] if 'runId' in event else event.get('run_id', '')}[/]")


def _node_started(console: Console, node: Mapping[str, Any]) -> None:
    console.print(f"[dim]→ {node['node_id']} ({node['node_type']})[/]")


def _node_finished(console: Console, node: Mapping[str, Any]) -> None:
    took = f"{node['duration_ms']:.1f} ms"
    tries = f", {node['attempts']} attempts" if node["attempts"] > 1 else ""
    usage = node.get("usage")
    tokens = f", {usage['input_tokens']}+{usage['output_tokens']} tokens" if usage else ""
    if node["status"] == "succeeded":
        parts = ["[green]✓[/]", node["node_id"], f"[dim]{took}{tries}{tokens}[/]", ending_of(node)]
    else:
        why = reason_of(node.get("error") or {})
        parts = ["[red]✗[/]", node["node_id"], f"[dim]{took}{tries}[/]", ending_of(node), why]
    console.print(" ".join(filter(None, parts)), soft_wrap=True)


def _continued(console: Console, taken_up: Mapping[str, Any]) -> None:
    times = "" if taken_up["times"] == 1 else f" for the {taken_up['times']}th time"
    console.print(f"[yellow]⟳[/] another process goes on with the run{times}")


def _asked(console: Console, asked: Mapping[str, Any]) -> None:
    choices = f" ({' | '.join(asked['choices'])})" if asked.get("choices") else ""
    console.print(f"[yellow]?[/] {escape(asked['message'])}{escape(choices)}", soft_wrap=True)
    how = "".join(
        f" --{name} …" for name, wanted in (("choice", "choices"), ("data", "form")) if asked.get(wanted)
    )
    console.print(f"[dim]to be answered by: orrery answer {asked['interrupt_id']}{how}[/]", soft_wrap=True)


def _suspended(console: Console, waiting: Mapping[str, Any]) -> None:
    until = f" until {waiting['until']}" if waiting.get("until") else ""
    console.print(f"[yellow]{waiting['status']}[/]{until}", soft_wrap=True)


def _resumed(console: Console, _: Mapping[str, Any]) -> None:
    console.print("[yellow]the run goes on[/]")


def _discarded(console: Console, message: Mapping[str, Any]) -> None:
    console.print(
        f"[yellow]✂[/] {message['node_id']}: the text above does not count: {reason_of(message['reason'])}",
        soft_wrap=True,
    )


def _citation(console: Console, citation: Mapping[str, Any]) -> None:
    show_citations(console, [dict(citation)])


def _finished(console: Console, event: Mapping[str, Any]) -> None:
    output = json.dumps(event.get("result"), ensure_ascii=False)
    console.print(f"[green]succeeded[/] {escape(output)}", soft_wrap=True)


def _failed(console: Console, event: Mapping[str, Any]) -> None:
    code = event.get("code") or "run_failed"
    word = "cancelled" if code == "cancelled" else "failed"
    console.print(f"[red]{word}[/] {reason_of({'code': code, 'message': event['message']})}", soft_wrap=True)


_TOLD: dict[str, Callable[[Console, Mapping[str, Any]], None]] = {
    "RUN_STARTED": _started,
    "run.continued": _continued,
    "interrupt": _asked,
    "run.suspended": _suspended,
    "run.resumed": _resumed,
    "node.started": _node_started,
    "node.finished": _node_finished,
    "retry": show_retry,
    "message.discarded": _discarded,
    "citation": _citation,
    "RUN_FINISHED": _finished,
    "RUN_ERROR": _failed,
}
"""Other events are for programs."""
