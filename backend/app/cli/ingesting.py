"""`orrery ingest`: folders and files into a collection, with a progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from app.cli.client import ApiError, Client, Unreachable, segment
from app.core.errors import Misconfigured

_BATCH_FILES = 20
_BATCH_BYTES = 64 * 2**20
_POLL_S = 0.25
_PATIENCE_S = 120
"""A server that is started again is back by then."""


@dataclass(slots=True)
class Ingested:
    """Counts of what became of the files. `failures` says why: (name, message)."""

    ready: int = 0
    unchanged: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)


def collect_files(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """Files with the names they get: relative to the folder that was named. Hidden files are left out.

    `Misconfigured` where two would get the same name: the second one would replace the first.
    """
    found: list[tuple[Path, str]] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file())
            relative = [(p, p.relative_to(path)) for p in inside]
            found += [(p, str(r)) for p, r in relative if not any(part.startswith(".") for part in r.parts)]
        elif path.is_file():
            found.append((path, path.name))
        else:
            raise Misconfigured(f"There is no file or folder {str(path)!r}.")
    if not found:
        raise Misconfigured(f"There are no files in {', '.join(repr(str(p)) for p in paths)}.")
    return list(_named_apart((path, _sendable(name)) for path, name in found))


def _named_apart(files: Iterable[tuple[Path, str]]) -> Iterator[tuple[Path, str]]:
    """Each file once."""
    named: dict[str, Path] = {}
    for path, name in files:
        other = named.setdefault(name, path)
        if other is path:
            yield path, name
        elif not other.samefile(path):
            raise Misconfigured(
                f"{str(other)!r} and {str(path)!r} would both be {name!r} in the collection, so that the "
                "second replaces the first: name a folder that holds both, or rename one."
            )


def _sendable(name: str) -> str:
    """A file name that is not UTF-8 with its stray bytes shown as question marks."""
    return name.encode("utf-8", "replace").decode()


def ensure_collection(client: Client, slug: str, *, name: str | None = None) -> Any:
    try:
        return client.get(f"/collections/{segment(slug)}")
    except ApiError as error:
        if error.code != "not_found":
            raise
        return client.post("/collections", {"name": name or slug, "slug": slug})


def ingest(
    client: Client, collection: str, files: Sequence[tuple[Path, str]], *, console: Console
) -> Ingested:
    """Uploads in batches and waits until every document has ended."""
    result = Ingested()
    jobs: list[str] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=not console.is_terminal) as progress:
        sent = progress.add_task("uploading", total=len(files))
        for batch in _batches(files):
            answer = client.upload(collection, [path for path, _ in batch], [name for _, name in batch])
            jobs.append(answer["job_id"])
            for item in answer["items"]:
                if item["status"] == "rejected":
                    result.failures.append((item["name"], item["error"]["message"]))
                result.unchanged += item["status"] == "unchanged"
            progress.advance(sent, len(batch))
        _wait(client, jobs, progress)
    for job in jobs:
        _count(client, job, result)
    return result


def _wait(client: Client, jobs: Sequence[str], progress: Progress) -> None:
    waiting = progress.add_task("ingesting", total=None)
    while True:
        states = _states(client, jobs, lambda: progress.update(waiting, description="the server is away"))
        done = sum(state["progress"]["done"] for state in states)
        total = sum(state["progress"]["total"] for state in states)
        stages = sorted({state["stage"] for state in states if state["stage"]})
        progress.update(
            waiting, completed=done, total=total, description=" · ".join(stages) or "waiting for a worker"
        )
        if done == total:
            progress.update(waiting, description="ingested")
            return
        time.sleep(_POLL_S)


def _states(client: Client, jobs: Sequence[str], away: Callable[[], None]) -> list[Any]:
    """A server that restarts is waited for: what it accepted it goes on with."""
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return [client.get(f"/jobs/{job}") for job in jobs]
        except ApiError as error:
            if error.code != Unreachable.code:
                raise
            if time.monotonic() > give_up:
                message = f"{error.detail} What was accepted is not lost; its jobs: {', '.join(jobs)}."
                raise ApiError(message) from error
        away()
        time.sleep(_POLL_S)


def _count(client: Client, job: str, result: Ingested) -> None:
    cursor: str | None = None
    while True:
        query = {"cursor": cursor} if cursor else {}
        page = client.get(f"/jobs/{job}/items", limit=200, **query)
        for item in page["items"]:
            if item["status"] == "succeeded":
                result.ready += 1
            else:
                error = item["error"] or {"message": item["status"]}
                name = client.get(f"/documents/{item['subject_id']}")["name"]
                result.failures.append((name, error["message"]))
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _batches(files: Sequence[tuple[Path, str]]) -> Iterator[list[tuple[Path, str]]]:
    batch: list[tuple[Path, str]] = []
    size = 0
    for path, name in files:
        grown = size + path.stat().st_size
        if batch and (len(batch) == _BATCH_FILES or grown > _BATCH_BYTES):
            yield batch
            batch, grown = [], path.stat().st_size
        batch.append((path, name))
        size = grown
    if batch:
        yield batch
