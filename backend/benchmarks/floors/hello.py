"""FastAPI and uvicorn with one route."""

from __future__ import annotations

from fastapi import FastAPI

from benchmarks.serving import serve

app = FastAPI()


@app.get("/")
async def hello() -> dict[str, str]:
    return {"hello": "world"}


if __name__ == "__main__":
    serve(app)
