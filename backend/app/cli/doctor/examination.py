"""Every check, in the order in which they are read, and what they found."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from app.cli.doctor.blobs import blobs_keep_what_they_get
from app.cli.doctor.broker import broker_answers
from app.cli.doctor.configuration import (
    keys_are_there,
    names_are_known,
    unknown_names,
    urls_fit,
    wrong_values,
)
from app.cli.doctor.database import (
    database_answers,
    notifications_arrive,
    saved_key_is_known,
    schema_is_current,
)
from app.cli.doctor.encryption import master_key_is_in_force
from app.cli.doctor.finding import Check, Finding, Level, fail
from app.cli.doctor.folder import disk_has_room, file_system_suits, folder_is_usable, secrets_are_private
from app.cli.doctor.machine import (
    packages_load,
    postgres_runs,
    python_fits,
    redis_runs,
    sandbox_works,
    weights_are_right,
)
from app.cli.doctor.model_server import model_server_answers
from app.cli.doctor.processes import last_end_was_good, nothing_is_left, platform_answers, port_is_free
from app.cli.doctor.subject import find_subject
from app.cli.doctor.work import work_gets_done
from app.core.config import Settings
from app.core.errors import AppError

_NEEDS: dict[Check, Check] = {
    schema_is_current: database_answers,
    notifications_arrive: database_answers,
    master_key_is_in_force: database_answers,
    saved_key_is_known: master_key_is_in_force,
    work_gets_done: database_answers,
}
"""Where the second check could not look, the first one would only say the same again."""

CHECKS: tuple[tuple[str, Check], ...] = (
    ("configuration", names_are_known),
    ("configuration", urls_fit),
    ("configuration", keys_are_there),
    ("machine", python_fits),
    ("machine", packages_load),
    ("machine", postgres_runs),
    ("machine", redis_runs),
    ("machine", weights_are_right),
    ("machine", sandbox_works),
    ("data folder", folder_is_usable),
    ("data folder", secrets_are_private),
    ("data folder", disk_has_room),
    ("data folder", file_system_suits),
    ("platform", platform_answers),
    ("platform", port_is_free),
    ("platform", nothing_is_left),
    ("platform", last_end_was_good),
    ("database", database_answers),
    ("database", schema_is_current),
    ("database", notifications_arrive),
    ("database", master_key_is_in_force),
    ("database", saved_key_is_known),
    ("broker", broker_answers),
    ("work", work_gets_done),
    ("blobs", blobs_keep_what_they_get),
    ("model", model_server_answers),
)


@dataclass(frozen=True, slots=True)
class Found:
    """A finding and the area that it belongs to."""

    area: str
    finding: Finding

    def document(self) -> dict[str, str]:
        return {
            "area": self.area,
            "level": self.finding.level,
            "what": self.finding.what,
            "what_to_do": self.finding.remedy,
        }


async def examine(environment: Mapping[str, str]) -> list[Found]:
    """Everything that is found. Where the settings cannot be read, only what is wrong with them."""
    try:
        settings = Settings()
    except ValidationError as error:
        wrong = [*wrong_values(error), *unknown_names(environment)]
        return [Found("configuration", finding) for finding in wrong]
    subject = find_subject(settings, environment)
    found: list[Found] = []
    blind: set[Check] = set()
    for area, check in CHECKS:
        if _NEEDS.get(check) in blind:
            blind.add(check)
            continue
        try:
            findings = check(subject)
            found += [Found(area, f) for f in (await findings if inspect.isawaitable(findings) else findings)]
        except AppError as error:
            blind.add(check)
            found.append(Found(area, fail(error.detail, "")))
        except Exception as error:
            blind.add(check)
            words = check.__name__.replace("_", " ")
            what = f"it cannot be told whether {words} ({type(error).__name__}: {error})"
            found.append(Found(area, fail(what, "repair what the other findings say first")))
    return found


def has_failures(found: list[Found]) -> bool:
    return worst(found) is Level.FAIL


def worst(found: list[Found]) -> Level:
    levels = {each.finding.level for each in found}
    return next((level for level in (Level.FAIL, Level.WARN) if level in levels), Level.OK)
