"""FastAPI, LangGraph and asyncpg: three nodes over HTTP and one row per run, with nothing around it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
from fastapi import FastAPI, Request
from langgraph.graph import START, StateGraph
from pydantic import BaseModel
from typing_extensions import TypedDict

from benchmarks.serving import serve

os.environ["LANGSMITH_TRACING"] = "false"

_TABLE = "CREATE TABLE IF NOT EXISTS bare_runs (id uuid PRIMARY KEY, input jsonb, output jsonb)"
_INSERT = "INSERT INTO bare_runs (id, input, output) VALUES ($1, $2, $3)"


class State(TypedDict, total=False):
    name: str
    text: str
    output: str


async def start(state: State) -> State:
    return {"name": state["name"]}


async def greet(state: State) -> State:
    return {"text": f"Hello, {state['name']}!"}


async def done(state: State) -> State:
    return {"output": state["text"]}


def three_nodes() -> Any:
    graph = StateGraph(State)
    graph.add_node("start", start)
    graph.add_node("greet", greet)
    graph.add_node("done", done)
    graph.add_edge(START, "start")
    graph.add_edge("start", "greet")
    graph.add_edge("greet", "done")
    return graph.compile()


class Run(BaseModel):
    input: dict[str, Any]


class Ran(BaseModel):
    id: str
    status: str
    output: dict[str, Any]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(sys.argv[1], min_size=4, max_size=10) as pool:
        await pool.execute(_TABLE)
        app.state.pool, app.state.graph = pool, three_nodes()
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/runs")
async def create(body: Run, request: Request) -> Ran:
    final = await request.app.state.graph.ainvoke({"name": body.input["name"]})
    run_id, output = uuid4(), {"text": final["output"]}
    await request.app.state.pool.execute(_INSERT, run_id, json.dumps(body.input), json.dumps(output))
    return Ran(id=str(run_id), status="succeeded", output=output)


if __name__ == "__main__":
    serve(app)
