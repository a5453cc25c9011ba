"""Which master key is in force, and what is to be done about the other ones that are at hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from app.cli.doctor.database import brief_engine, nobody
from app.cli.doctor.finding import Finding, fail, ok, warn
from app.cli.doctor.subject import Subject
from app.core.envelope import MasterKeys, fingerprint
from app.core.security import MIN_KEY_LENGTH, master_key_file, master_keys, wrapping_key
from app.db.failures import explained
from app.db.session import make_database
from app.embedded import ServicesFile
from app.services.installation_service import check_master_key, count_lost_keys, master_in_force
from app.services.sealing import FINISH_CHANGE


@dataclass(frozen=True, slots=True)
class _Keys:
    """Ids of master keys. `kept` is that of the file `path`, where another one is given beside it.

    `lost` data keys are wrapped by none of `masters`, `old` ones not by the current one.
    """

    in_force: UUID
    masters: MasterKeys
    kept: UUID | None
    path: str
    lost: int
    old: int


async def master_key_is_in_force(subject: Subject) -> list[Finding]:
    """`Misconfigured` where the one in force is not at hand."""
    settings = subject.settings
    if settings.master_key is None and not master_key_file(settings).exists():
        return []  # looking for it would make one; that it is missing is said among the settings
    if not subject.database_url:
        return []
    masters, kept = master_keys(settings), _kept(subject)
    with explained(subject.database_url, setting="ORRERY_DATABASE_URL"):
        async with brief_engine(subject, subject.database_url) as engine:
            database = make_database(engine, nobody)
            in_force = await master_in_force(database)
            if in_force is None:
                return [ok("nothing is encrypted in the database yet")]
            if in_force not in masters.ids and in_force == kept:
                return [_not_in_force(masters, in_force, str(master_key_file(settings)))]
            await check_master_key(database, settings)
            keys = _Keys(
                in_force,
                masters,
                kept,
                str(master_key_file(settings)),
                lost=await count_lost_keys(database, masters),
                old=await count_lost_keys(database, MasterKeys(masters.current)),
            )
    found = [*_left_out(subject.running, keys), *_findings(keys)]
    return found or [ok("the master key fits the database, and no data key needs another")]


def _left_out(running: ServicesFile | None, keys: _Keys) -> Iterator[Finding]:
    """Whether the platform that runs was started with the keys that it needs, or soon will need."""
    if running is None or not running.master_keys:
        return
    if keys.in_force not in running.master_keys:
        yield fail(
            f"process {running.pid} was started without the master key that is in force (fingerprint "
            f"{fingerprint(keys.in_force)}): it refuses secrets",
            "start 'orrery serve' again with it in ORRERY_MASTER_KEY",
        )
    elif keys.masters.current.id not in running.master_keys:
        yield warn(
            f"process {running.pid} was started without the new master key (fingerprint "
            f"{fingerprint(keys.masters.current.id)}): it will refuse secrets once that is in force",
            "start 'orrery serve' again with both keys before you run 'orrery secrets rotate'",
        )


def _kept(subject: Subject) -> UUID | None:
    path = master_key_file(subject.settings)
    if subject.settings.master_key is None or not path.exists():
        return None
    key = path.read_bytes()
    return wrapping_key(key).id if len(key) >= MIN_KEY_LENGTH else None


def _not_in_force(masters: MasterKeys, in_force: UUID, path: str) -> Finding:
    return fail(
        f"the key in {path!r} (fingerprint {fingerprint(in_force)}) is in force, and ORRERY_MASTER_KEY "
        f"({fingerprint(masters.current.id)}) is not",
        "to change the master key, start with ORRERY_MASTER_KEY_PREVIOUS set to the file's key and run "
        "'orrery secrets rotate'; else remove ORRERY_MASTER_KEY",
    )


def _findings(keys: _Keys) -> Iterator[Finding]:
    current = keys.masters.current.id
    if keys.lost:
        yield fail(
            f"{keys.lost} data keys are wrapped by an earlier master key: a change of it was not finished",
            FINISH_CHANGE,
        )
    if keys.in_force != current:
        yield warn(
            f"the master key is being changed: the previous one (fingerprint {fingerprint(keys.in_force)}) "
            f"is still in force, the new one ({fingerprint(current)}) is not yet",
            "once every process was started with both, run 'orrery secrets rotate'; keep both until then",
        )
    elif keys.old > keys.lost:
        yield warn(
            f"the new master key (fingerprint {fingerprint(current)}) is in force, and the previous one "
            f"still wraps {keys.old - keys.lost} data keys",
            "run 'orrery secrets rotate' again; keep both until then",
        )
    elif not keys.lost:
        yield from _retired(keys)


def _retired(keys: _Keys) -> Iterator[Finding]:
    current = keys.masters.current.id
    if keys.kept not in (None, current):
        yield warn(
            f"ORRERY_MASTER_KEY (fingerprint {fingerprint(current)}) is in force, and the key in "
            f"{keys.path!r} is retired",
            "move the file away, to the backups that were made while it was in force",
        )
    if keys.masters.previous is not None and keys.masters.previous.id != current:
        yield warn(
            "ORRERY_MASTER_KEY_PREVIOUS is still set, and wraps nothing any more",
            "leave it out at the next start; keep it with the backups that were made while it was in force",
        )
