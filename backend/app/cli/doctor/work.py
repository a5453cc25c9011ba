"""Whether work gets done: workers that answer, items that wait too long, leases of the dead."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from celery import Celery
from kombu.exceptions import OperationalError

from app.cli.doctor.database import brief_engine, nobody
from app.cli.doctor.finding import Finding, fail, ok, warn
from app.cli.doctor.subject import Subject
from app.core.config import Settings
from app.db.failures import explained
from app.db.inspection import RunFacts, WorkFacts, work_facts
from app.db.session import make_database

_ANSWER_S = 1.0
_PATIENCE_S = 5.0
_LONG_S = 60.0
_CLAIMS_OF_ONE = 2
"""So many looks of a process that has room, and a run that waits is its own."""


async def work_gets_done(subject: Subject) -> list[Finding]:
    if not subject.database_url or not subject.redis_url:
        return []
    with explained(subject.database_url, setting="ORRERY_DATABASE_URL"):
        async with (
            brief_engine(subject, subject.database_url) as engine,
            make_database(engine, nobody).system_work() as session,
        ):
            items, runs = await work_facts(session)
    workers = await asyncio.to_thread(_workers, subject.redis_url)
    settings, serves = subject.settings, subject.running is not None
    return [
        *_answering(workers, items),
        *item_findings(items, settings, works=serves and workers > 0),
        *run_findings(runs, settings, works=serves),
    ]


def _workers(url: str) -> int:
    """How many workers answer a ping, also busy ones."""
    transport = {"socket_timeout": _PATIENCE_S, "socket_connect_timeout": _PATIENCE_S}
    try:
        with Celery(broker=url, broker_transport_options=transport, set_as_current=False) as app:
            return len(app.control.ping(timeout=_ANSWER_S))
    except (OperationalError, OSError):
        return 0  # the broker has findings of its own


def _answering(workers: int, items: WorkFacts) -> Iterator[Finding]:
    if workers:
        yield ok(f"workers that answer: {workers}")
    elif items.due:
        yield fail(f"no worker answers, and {items.due} items wait", "run 'orrery worker'")
    else:
        yield warn("no worker answers: documents would wait", "run 'orrery worker'")


def item_findings(items: WorkFacts, settings: Settings, *, works: bool) -> Iterator[Finding]:
    """`works`: there is a worker to take up what a dead one held, each item alone."""
    if items.waited_s > _LONG_S:
        yield warn(
            f"{items.due} items are due, the oldest for {items.waited_s:.0f} s",
            "run more workers ('orrery worker'), or look into their log",
        )
    else:
        yield ok(f"items that wait: {items.due}")
    if not _left(items, settings):
        return
    if works:
        yield warn(
            f"{items.expired} items of a dead worker wait to be tried again, one at a time, the oldest for "
            f"{items.expired_for_s:.0f} s",
            "wait: each is alone for "
            f"{settings.ingest_isolation_s:g} s at most; if their number does not fall, see the worker's log",
        )
    else:
        yield _abandoned("items", items)


def run_findings(runs: RunFacts, settings: Settings, *, works: bool) -> Iterator[Finding]:
    """`works`: a platform runs here. Whether any process takes up runs shows in what is executing."""
    idle = not runs.taken_up
    if runs.due and idle and runs.waited_s > _CLAIMS_OF_ONE * settings.sweep_interval_s:
        yield _nobody_claims(runs.due, runs.waited_s)
    elif runs.due and runs.waited_s > _LONG_S:
        yield warn(
            f"{runs.due} runs wait, the oldest for {runs.waited_s:.0f} s, while {runs.taken_up} execute",
            "run more workers ('orrery worker --runs'), or raise ORRERY_RUN_CLAIM_CONCURRENCY",
        )
    else:
        yield ok(f"runs that wait: {runs.due}")
    if not _left(runs, settings):
        return
    if works and idle:
        yield _nobody_claims(runs.expired, runs.expired_for_s)
    elif works:
        yield fail(
            f"{runs.expired} runs of a dead process were not taken up, the oldest for "
            f"{runs.expired_for_s:.0f} s",
            "see the log of 'orrery serve': it should have ended or continued them",
        )
    else:
        yield _abandoned("runs", runs)


def _nobody_claims(runs: int, since_s: float) -> Finding:
    return warn(
        f"{runs} runs have been waiting, the oldest for {since_s:.0f} s, and no process takes them up",
        "start 'orrery worker --runs', or an 'orrery serve' without ORRERY_RUN_CLAIMS=false",
    )


def _left(facts: WorkFacts, settings: Settings) -> bool:
    """Somebody sweeps within a lease and two looks: whether anything has been left for longer."""
    return facts.expired > 0 and facts.expired_for_s > settings.lease_s + 2 * settings.sweep_interval_s


def _abandoned(noun: str, facts: WorkFacts) -> Finding:
    return fail(
        f"{facts.expired} {noun} belong to dead processes, the oldest for {facts.expired_for_s:.0f} s",
        "start 'orrery serve' (and workers): it takes them up",
    )
