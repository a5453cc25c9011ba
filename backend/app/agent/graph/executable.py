"""A compiled agent: validates input, runs the plan, and tells the run's story as events."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import Any

from ag_ui.core import CustomEvent, RunErrorEvent, RunFinishedEvent, RunStartedEvent, TokenUsage

from app.agent.core.events import RunSuspended
from app.agent.core.interfaces import Session, Usage
from app.agent.core.interrupts import Suspended
from app.agent.core.state import RunState
from app.agent.graph.attempts import NodeFailed
from app.agent.graph.issues import Findings, quoted
from app.agent.graph.json_schema import with_defaults
from app.agent.graph.limits import check_size
from app.agent.graph.plan import Plan
from app.agent.graph.ports import (
    InvalidInput,
    Past,
    Ports,
    RunFailed,
    RunResult,
    Undeliverable,
    total,
)
from app.agent.graph.references import as_text
from app.agent.graph.replaying import Replay
from app.agent.graph.run_context import Frame, RunContext
from app.agent.graph.stepping import AmbiguousEnd, end_reached, run_alone, run_inside, run_through
from app.core.errors import FieldError
from app.core.garbage import kept

_log = logging.getLogger(__name__)
_ADAPTER = "app.agent.langgraph_adapter"
_PROTOCOL = "1.0"

Drive = Callable[[Mapping[str, Any], Frame], Awaitable[RunState]]


class ExecutableAgent:
    """Runs one plan, any number of times at once. `checkpointer` makes a LangGraph saver, if any."""

    def __init__(self, plan: Plan, *, checkpointer: Callable[[], Any] | None = None) -> None:
        self.plan = plan
        self._checkpointer = checkpointer
        self._drive: Drive | None = None

    def validate_input(self, value: Any) -> dict[str, Any]:
        """The input with defaults filled in. Raises `InvalidInput` with every error at once."""
        findings = Findings()
        if not check_size(value, findings):
            issues = findings.report(value).errors
            raise _invalid([FieldError(issue.pointer, issue.code, issue.message) for issue in issues])
        if not isinstance(value, dict):
            raise _invalid([FieldError("", "type", f"the input must be an object, not {quoted(value)}")])
        if errors := self.plan.shape.errors_of(value):
            raise _invalid(errors)
        return with_defaults(self.plan.inputs, value)

    async def run(
        self,
        inputs: Mapping[str, Any],
        *,
        ports: Ports,
        run_id: str,
        thread_id: str,
        session: Session | None = None,
        past: Past | None = None,
        effects_id: str = "",
        replay: Replay | None = None,
        used: dict[str, Usage] | None = None,
    ) -> RunResult:
        """Runs to the end; `inputs` are as `validate_input` gives them.

        Events go to `ports.sink`, steps to `ports.journal`.
        With a `past` it goes on where that ends: steps that the journal recalls are not executed again.
        `effects_id` is the id of the run whose effects it may have to repeat, if that is another one. With
        a `replay`, nodes that are not pure are answered by that, which is sink and journal, too.
        `used` is kept up to what the run has used so far, by model: it is there however the run ends.
        Emits RUN_STARTED first and exactly one of RUN_FINISHED (then returns) and RUN_ERROR (then
        raises `RunFailed`) last. Without a terminal event it ends in three cases, where writing one is up
        to the caller: `CancelledError`, which aborts model calls and is passed on at once; `Undeliverable`,
        when sink or journal raised or the platform's database is away; and `Suspended`, when all that is
        left waits for a person or a time: it goes on by another call, with its past.
        """
        told = _snapshot(session or Session(id=thread_id))
        used = {} if used is None else used
        run = RunContext(ports, run_id, thread_id, told, run_inside, past or Past(), effects_id, replay, used)
        if run.past.begun:
            await run.go_on()
        else:
            await run.emit(RunStartedEvent(thread_id=thread_id, run_id=run_id, protocol_version=_PROTOCOL))
        try:
            output = await self._output(inputs, run)
        except Suspended as waiting:
            await run.emit(_suspension(waiting))
            raise
        except (Undeliverable, RunFailed):
            raise
        except AmbiguousEnd as error:
            raise await _ended(run, error.code, error.detail) from error
        except NodeFailed as failed:
            message = f"node {failed.node_id!r} failed: {failed.failure.message}"
            raise await _ended(run, failed.failure.code, message, node_id=failed.node_id) from failed
        except Exception as error:
            run.rule_out_outage(error)
            _log.exception("run %s broke", run_id)
            raise await _ended(run, "internal_error", "the run failed unexpectedly") from error
        finally:
            await run.lookout.close()
        await run.end(
            RunFinishedEvent(thread_id=thread_id, run_id=run_id, result=output, usage=_usage(run) or None)
        )
        return RunResult(output, total(run.usage), dict(run.usage))

    async def _output(self, inputs: Mapping[str, Any], run: RunContext) -> dict[str, Any]:
        drive = run_through if run.replay else await self._driver()
        final = await drive(inputs, Frame(run, self.plan, {"session": run.session}))
        reached = end_reached(self.plan, final)
        output = final["outputs"][reached]
        await self._show(output, run, node_path=reached)
        return output

    async def _show(self, output: Mapping[str, Any], run: RunContext, *, node_path: str) -> None:
        """The answer as an assistant message, unless its text was shown as it came."""
        if self.plan.answer is None:
            return
        text = as_text(output[self.plan.answer])
        if text not in run.shown:
            message = run.message(node_path, 1)
            await message.say(text)
            await message.complete()

    async def _driver(self) -> Drive:
        if self._drive is None and len(self.plan.steps) == 1:
            self._drive = partial(run_alone, self.plan)  # there is nothing to drive, or to go on from
        if self._drive is None:
            await load_engine()
            saver = self._checkpointer() if self._checkpointer else None
            self._drive = import_module(_ADAPTER).Drive(self.plan, saver)
        return self._drive


async def load_engine() -> None:
    """Imports LangGraph, off the event loop; later calls cost nothing."""
    if not hasattr(sys.modules.get(_ADAPTER), "Drive"):
        with kept():
            await asyncio.to_thread(import_module, _ADAPTER)


def _snapshot(session: Session) -> dict[str, Any]:
    return {
        "id": session.id,
        "user": session.user,
        "messages": list(session.messages),
        "variables": session.variables,
    }


def _invalid(errors: list[FieldError]) -> InvalidInput:
    first = errors[0]
    where = f" at {first.pointer}" if first.pointer else ""
    return InvalidInput(f"the input does not fit the agent: {first.message}{where}", errors=errors)


def _suspension(waiting: Suspended) -> CustomEvent:
    due = None if waiting.due_ms is None else datetime.fromtimestamp(waiting.due_ms / 1000, UTC)
    return RunSuspended(status="interrupted" if waiting.by_people else "waiting", until=due).event()


def _usage(run: RunContext) -> list[TokenUsage]:
    return [
        TokenUsage(model=model, input_tokens=used.input_tokens, output_tokens=used.output_tokens)
        for model, used in sorted(run.usage.items())
    ]


async def _ended(run: RunContext, code: str, message: str, *, node_id: str | None = None) -> RunFailed:
    """Emits RUN_ERROR and gives the exception that says the same."""
    await run.end(RunErrorEvent(code=code, message=message, usage=_usage(run) or None))
    return RunFailed(message, code=code, node_id=node_id, usage_by_model=dict(run.usage))
