"""Bodies that cannot be read: whoever may not call the route is told that, and nothing of the body.

FastAPI 0.165 reads JSON before it asks any dependency, so the route's guard is asked here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Final

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import solve_dependencies

from app.api.dependencies import Demand, Public

_STACK: Final = "fastapi_inner_astack"
"""Where FastAPI keeps what is to be closed behind a request."""


async def ask_guard(request: Request) -> None:
    """Raises what the guard of the request's route has against the caller."""
    async with AsyncExitStack() as stack:
        outer = request.scope.get(_STACK)
        request.scope[_STACK] = stack
        stack.callback(request.scope.update, {_STACK: outer})
        for guard in _guards(request.scope["route"].dependant):
            solved = await solve_dependencies(
                request=request, dependant=guard, async_exit_stack=stack, embed_body_fields=False
            )
            await guard.call(**solved.values)  # type: ignore[misc]


def _guards(dependant: Dependant) -> Iterator[Dependant]:
    for child in dependant.dependencies:
        if isinstance(child.call, Demand | Public):
            yield child
        yield from _guards(child)
