"""`wait`: until a time, or for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from pydantic import Field

from app.agent.core.base import Effect, Mistake, NodeConfig, NodeError, Outputs, expects, node
from app.agent.core.scope import Scope
from app.agent.core.value_types import kind_of
from app.agent.graph.references import Template

_LONGEST_S = 366 * 86_400


class WaitConfig(NodeConfig):
    """Waits, without keeping a process: `for_s` seconds (a number, or a reference to one), or `until` a time.

    A time is written as in RFC 3339, `2026-12-24T18:00:00+01:00`; without an offset it is UTC. One that is
    past does not wait. `waited_until` is the time that was waited for.
    """

    type: ClassVar[str] = "wait"

    example: ClassVar[dict[str, Any]] = {"for_s": 3600}

    for_s: (
        Annotated[float, Field(strict=True, ge=0, le=_LONGEST_S)] | Annotated[Template, expects(float)] | None
    ) = None
    until: Template | None = None

    @classmethod
    def mistakes(cls, raw: Mapping[str, Any]) -> Iterator[Mistake]:
        given = [key for key in ("for_s", "until") if raw.get(key) is not None]
        if len(given) != 1:
            said = "both 'for_s' and 'until' are there" if given else "neither 'for_s' nor 'until' is there"
            yield Mistake((), said, 'give one of them, such as "for_s": 60')
        seconds, moment = raw.get("for_s"), raw.get("until")
        if isinstance(seconds, str) and "{{" not in seconds:
            message = f"'for_s' takes a number of seconds, or a reference to one, not {seconds[:40]!r}"
            yield Mistake(("for_s",), message, "write the number without quotes")
        if isinstance(moment, str) and "{{" not in moment:
            try:
                _moment(moment)
            except NodeError as error:
                yield Mistake(("until",), error.detail, "write it as in RFC 3339, or refer to one")


@node(WaitConfig, effect=Effect.READ, suspends=True, outputs={"waited_until": datetime})
async def wait(config: WaitConfig, scope: Scope) -> Outputs:
    """Raises `Suspended` until then; `NodeError` (`bad_request`) for what is no time."""
    due_ms = _due_ms(config, scope)
    await scope.until(due_ms)
    return {"waited_until": datetime.fromtimestamp(due_ms / 1000, UTC)}


def _due_ms(config: WaitConfig, scope: Scope) -> int:
    if config.until is not None:
        return int(_moment(config.until.text(scope)).timestamp() * 1000)
    seconds = config.for_s.value(scope) if isinstance(config.for_s, Template) else config.for_s
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise NodeError(f"'for_s' takes a number of seconds, not {kind_of(seconds)}", code="bad_request")
    if not 0 <= seconds <= _LONGEST_S:
        raise NodeError(f"'for_s' takes 0 to {_LONGEST_S} seconds, not {seconds:g}", code="bad_request")
    return scope.now_ms() + int(seconds * 1000)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        message = f"'until' takes a time such as 2026-12-24T18:00:00Z, not {text[:40]!r}"
        raise NodeError(message, code="bad_request") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
