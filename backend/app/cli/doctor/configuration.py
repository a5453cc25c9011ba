"""Settings: known names, sensible values, and the master key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydantic import SecretStr, ValidationError

from app.cli.doctor.finding import Finding, fail, ok, warn
from app.cli.doctor.subject import Subject
from app.cli.setting_names import PREFIX, given_settings, unknown_settings
from app.core.config import Settings
from app.core.errors import Misconfigured
from app.core.security import MIN_KEY_LENGTH, jwt_key, master_key

_SECRET = ("KEY", "PASSWORD", "URL")
_DATABASE = ("postgresql", "postgres")
_BROKER = ("redis", "rediss", "unix")


def names_are_known(subject: Subject) -> Iterator[Finding]:
    yield from unknown_names(subject.environment)


def unknown_names(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Each `ORRERY_*` variable of the environment and of `.env` is one that somebody reads."""
    ours = given_settings(environment)
    unknown = unknown_settings(ours)
    for name, near in unknown.items():
        remedy = f"did you mean {near}?" if near else "remove it; orrery's settings are in its reference"
        yield fail(f"{name} is set, but there is no such setting", remedy)
    for name, value in ours.items():
        if not value.strip():
            yield warn(f"{name} is set, but empty", "give it a value, or remove it")
    if not unknown:
        yield ok(f"{len(ours)} variables {PREFIX}* are set, all known")


def wrong_values(error: ValidationError) -> Iterator[Finding]:
    """What keeps the settings from being read at all."""
    for wrong in error.errors():
        field = "_".join(map(str, wrong["loc"])).upper()
        name = field if field.startswith(PREFIX) else PREFIX + field
        shown = "…" if name.endswith(_SECRET) else repr(wrong["input"])
        yield fail(f"{name} is {shown}: {wrong['msg']}", "correct the value, or remove the variable")


def urls_fit(subject: Subject) -> Iterator[Finding]:
    settings = subject.settings
    if settings.database_migration_url and not settings.database_url:
        yield fail(
            "ORRERY_DATABASE_MIGRATION_URL is set without ORRERY_DATABASE_URL", "set both, or neither of them"
        )
    wanted = {
        "ORRERY_DATABASE_URL": (settings.database_url, _DATABASE),
        "ORRERY_DATABASE_MIGRATION_URL": (settings.database_migration_url, _DATABASE),
        "ORRERY_REDIS_URL": (settings.redis_url, _BROKER),
    }
    for name, (value, schemes) in wanted.items():
        text = value.get_secret_value().strip() if value else ""
        scheme = text.partition("://")[0].partition("+")[0]
        if text and scheme not in schemes:
            yield fail(f"{name} begins with {scheme[:20]!r}", f"it begins with {schemes[0]}://")
    kinds = "embedded services" if settings.embedded else "services of your own"
    yield ok(f"the settings ask for {kinds}")


def keys_are_there(subject: Subject) -> Iterator[Finding]:
    """The master key, and that of people's sessions. Reading one in an empty folder would make it."""
    settings = subject.settings
    folder = subject.data / "secrets"
    lost = (subject.data / "postgres").exists() and not (folder / "master.key").exists()
    if settings.master_key is None and settings.embedded and lost and settings.master_key_previous:
        yield ok("a new master key will be generated at the next start, in place of the previous one")
    elif settings.master_key is None and settings.embedded and lost:
        yield fail(
            f"the master key {str(folder / 'master.key')!r} is missing, and there is a database",
            "restore it from a backup: without it no stored key or secret can be used",
        )
    else:
        path = folder / "master.key"
        yield _key("MASTER", settings, path, settings.master_key, master_key)
        if not subject.database_url and _differs(settings.master_key, path):
            yield warn(
                f"ORRERY_MASTER_KEY is another key than the one in {str(path)!r}",
                "keep both: while the platform runs, 'orrery doctor' says which one is in force",
            )
    path = folder / "jwt.key"
    yield _key("JWT", settings, path, settings.jwt_key, jwt_key)
    if _differs(settings.jwt_key, path):
        yield warn(
            f"ORRERY_JWT_KEY is another key than the one in {str(path)!r}",
            "remove the one you do not want: ORRERY_JWT_KEY is used, and a change ends every session",
        )


def _differs(given: SecretStr | None, path: Path) -> bool:
    return given is not None and path.exists() and path.read_text() != given.get_secret_value()


def _key(
    name: str, settings: Settings, path: Path, given: SecretStr | None, find: Callable[[Settings], bytes]
) -> Finding:
    if given is None and settings.embedded and not path.exists():
        return ok(f"the key {str(path)!r} will be generated at the next start")
    try:
        key = find(settings)
    except (Misconfigured, OSError) as error:
        return fail(str(error), f"correct ORRERY_{name}_KEY")
    if len(key) < MIN_KEY_LENGTH:
        return fail(f"the key in {str(path)!r} is cut short", "restore it from a backup")
    return ok(f"the {name.lower()} key is there")
