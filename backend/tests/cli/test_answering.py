"""`orrery ask`: what is shown of an answer besides its text."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

from app.cli.answering import read_answer, show_times

REASON = {"code": "server_error", "message": "No connection to '127.0.0.1:9' could be made."}
RETRY = {"node_id": "write", "attempt": 2, "delay_ms": 500.0, "error": REASON}
NODE = {"node_id": "write", "node_type": "llm", "duration_ms": 1.0}


def shown(*events: dict[str, Any]) -> str:
    console = Console(file=(written := StringIO()), width=200)
    answer = read_answer(({"run_id": "r", "event": event} for event in events), show=console)
    show_times(console, answer.nodes)
    return written.getvalue()


def told(name: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "CUSTOM", "name": name, "value": value}


def test_a_retry_is_told_while_it_is_waited_for() -> None:
    said = shown(told("retry", RETRY), {"type": "TEXT_MESSAGE_CONTENT", "delta": "Because."})
    assert said.startswith("↻ write: attempt 2 in 500 ms, after server_error: No connection to '127.0.0.1:9'")
    assert "\nBecause.\n" in said


def test_an_answer_that_was_cut_off_is_told() -> None:
    assert "finish_reason length" in shown(told("node.finished", NODE | {"finish_reason": "length"}))


def test_nothing_is_told_of_an_answer_that_is_complete() -> None:
    assert "finish_reason" not in shown(told("node.finished", NODE | {"finish_reason": "stop"}))


def test_the_last_message_of_an_agent_is_its_answer() -> None:
    events = [
        {"type": kind, **({"delta": text} if "CONTENT" in kind else {})}
        for text in ("Let me look.", "Sunny.")
        for kind in ("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END")
    ]
    assert read_answer({"run_id": "r", "event": event} for event in events).text == "Sunny."
    assert shown(*events).startswith("Let me look.\nSunny.\n")
