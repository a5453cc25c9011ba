"""`orrery eval`: how well search finds what is known to be relevant, measured through the API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.cli.client import Client
from app.cli.ingesting import ensure_collection
from app.cli.retrieval_metrics import ndcg, recall, reciprocal_rank
from app.cli.retrieval_set import RetrievalSet, Text
from app.core.errors import AppError
from app.core.slugs import slugify

_TOP_K = 100
_CALLS_AT_ONCE = 4
_BATCH_TEXTS = 200
_BATCH_CHARACTERS = 2**20
_POLL_S = 0.25
_TITLE_CHARACTERS = 500
_ENDED = ("ready", "failed", "cancelled")
_SHOWN_FAILURES = 5


class Mode(StrEnum):
    """The legs of a search."""

    KEYWORD = "keyword"
    DENSE = "dense"
    HYBRID = "hybrid"


class EvaluationFailed(AppError):
    """The set could not be searched as a whole, so that no figure would mean anything."""

    code, title = "evaluation_failed", "Evaluation failed"


@dataclass(frozen=True, slots=True)
class Scores:
    """Means over the judged queries. `ms_per_query` is the time a caller waited, with four calling at once.

    The server keeps vectors of recent queries, so a mode measured after another one embeds fewer.
    """

    ndcg_at_10: float
    recall_at_100: float
    mrr_at_10: float
    ms_per_query: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured on which collection; `foreign` documents there are not of the set."""

    collection: str
    documents: int
    foreign: int
    queries: int
    modes: dict[Mode, Scores]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def default_collection(name: str) -> str:
    """The slug for a set: `eval-` and its folder's name."""
    return slugify(f"eval-{name}")


def evaluate(
    client: Client, found: RetrievalSet, *, collection: str, modes: Sequence[Mode], console: Console
) -> Evaluation:
    """Ingests the set, waits until all of it can be searched, asks every judged query in every mode."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=not console.is_terminal) as progress:
        ensure_collection(client, collection)
        _send(client, collection, found.texts, progress)
        present = _wait(client, collection, progress)
        measured = {mode: _measure(client, collection, found, mode, progress) for mode in modes}
    return Evaluation(
        collection=collection,
        documents=len(found.texts),
        foreign=present - len(found.texts),
        queries=len(found.judgements),
        modes=measured,
    )


def show(console: Console, evaluation: Evaluation) -> None:
    title = f"{evaluation.collection}: {evaluation.documents} documents, {evaluation.queries} queries"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("mode")
    for name in ("nDCG@10", "recall@100", "MRR@10", "ms/query"):
        table.add_column(name, justify="right")
    for mode, scores in evaluation.modes.items():
        quality = (scores.ndcg_at_10, scores.recall_at_100, scores.mrr_at_10)
        table.add_row(mode.value, *(f"{value:.4f}" for value in quality), f"{scores.ms_per_query:.1f}")
    console.print(table)
    if evaluation.foreign:
        console.print(
            f"The collection {evaluation.collection!r} holds {evaluation.foreign} documents that are not of "
            "this set; they count as not relevant."
        )


def _send(client: Client, collection: str, texts: Sequence[Text], progress: Progress) -> None:
    sent = progress.add_task("sending", total=len(texts))
    for batch in _batches(texts):
        items = [{"external_id": text.id, "title": _title(text), "text": text.text} for text in batch]
        answer = client.post(f"/collections/{collection}/documents/text", {"items": items})
        rejected = [item for item in answer["items"] if item["status"] == "rejected"]
        if rejected:
            reasons = [f"{item['external_id']}: {item['error']['message']}" for item in rejected]
            raise _incomplete("were rejected", reasons)
        progress.advance(sent, len(batch))


def _title(text: Text) -> str:
    """What the API demands: a title. Its words are searched, so the id stands in rather than words again."""
    return (text.title or text.id)[:_TITLE_CHARACTERS]


def _batches(texts: Sequence[Text]) -> Iterator[list[Text]]:
    batch: list[Text] = []
    size = 0
    for text in texts:
        if batch and (len(batch) == _BATCH_TEXTS or size + len(text.text) > _BATCH_CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text.text)
    if batch:
        yield batch


def _wait(client: Client, collection: str, progress: Progress) -> int:
    """Waits until every document of the collection has ended; answers how many there are."""
    waiting = progress.add_task("ingesting", total=None)
    while True:
        states: Mapping[str, int] = client.get(f"/collections/{collection}")["documents"]
        total = sum(states.values())
        done = sum(states.get(state, 0) for state in _ENDED)
        stages = " · ".join(state for state in states if state not in _ENDED)
        progress.update(waiting, completed=done, total=total, description=stages or "ingested")
        if done == total:
            break
        time.sleep(_POLL_S)
    if states.get("ready", 0) != total:
        raise _incomplete("were not ingested", list(_failures(client, collection)))
    return total


def _failures(client: Client, collection: str) -> Iterator[str]:
    for status in ("failed", "cancelled"):
        page = client.get(f"/collections/{collection}/documents", status=status, limit=_SHOWN_FAILURES + 1)
        for item in page["items"]:
            yield f"{item['external_id']}: {item['error']['message'] if item['error'] else status}"


def _incomplete(what: str, reasons: Sequence[str]) -> EvaluationFailed:
    more = "; …" if len(reasons) > _SHOWN_FAILURES else ""
    return EvaluationFailed(f"Some documents {what}: {'; '.join(reasons[:_SHOWN_FAILURES])}{more}.")


def _measure(client: Client, collection: str, found: RetrievalSet, mode: Mode, progress: Progress) -> Scores:
    ask = _asking(client, collection, mode)
    ask("warm-up")  # the server loads its model with the first query
    task = progress.add_task(mode.value, total=len(found.judgements))
    rows: list[tuple[float, float, float, float]] = []
    with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
        asked = pool.map(ask, (found.queries[query] for query in found.judgements))
        for gains, (ranked, ms) in zip(found.judgements.values(), asked, strict=True):
            rows.append(
                (
                    ndcg(ranked, gains, at=10),
                    recall(ranked, gains, at=100),
                    reciprocal_rank(ranked, gains, at=10),
                    ms,
                )
            )
            progress.advance(task)
    return Scores(*(fmean(column) for column in zip(*rows, strict=True)))


def _asking(client: Client, collection: str, mode: Mode) -> Callable[[str], tuple[list[str], float]]:
    body = {"collections": [collection], "mode": mode.value, "top_k": _TOP_K, "group_by": "document"}

    def ask(query: str) -> tuple[list[str], float]:
        """External ids, best first, and the milliseconds it took."""
        began = time.perf_counter()
        found = client.post("/search", body | {"query": query})
        duration_ms = (time.perf_counter() - began) * 1000
        return [item["external_id"] for item in found["items"]], duration_ms

    return ask
