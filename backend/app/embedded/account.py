"""Which operating-system user the services run as: ours, or an unprivileged one when we are root."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import Misconfigured

UNPRIVILEGED = "nobody"
NAMED_USER = "run as a user that exists in /etc/passwd, or set ORRERY_DATABASE_URL"


@dataclass(frozen=True, slots=True)
class Account:
    """A user without supplementary groups."""

    name: str
    uid: int
    gid: int

    def can_reach(self, path: Path) -> bool:
        """Whether the mode bits let this user through every folder down to `path`, and into it."""
        return all(self._may_enter(part.stat()) for part in (path, *path.parents))

    def _may_enter(self, entry: os.stat_result) -> bool:
        if entry.st_uid == self.uid:
            return bool(entry.st_mode & stat.S_IXUSR)
        if entry.st_gid == self.gid:
            return bool(entry.st_mode & stat.S_IXGRP)
        return bool(entry.st_mode & stat.S_IXOTH)


def name_fault(uid: int) -> str:
    """Why initdb refuses the user id; empty if it does not. A database that exists runs without a name."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return f"user id {uid} is not in /etc/passwd, and PostgreSQL makes no database for such a user"
    return ""


def service_account(cluster: Path) -> Account | None:
    """The user to become before a service starts, or None to stay who we are.

    PostgreSQL refuses to run as root. A cluster that already belongs to an ordinary user (the platform
    was started by that user before) keeps its owner.

    Raises:
        Misconfigured: we are root and the machine has no unprivileged user.
    """
    if os.geteuid() != 0:
        return None
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return Account(name=str(owner.st_uid), uid=owner.st_uid, gid=owner.st_gid)
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError as error:
        raise Misconfigured(
            f"This machine has no user {UNPRIVILEGED!r} for PostgreSQL, which refuses to run as root: "
            "create it, or start Orrery as an ordinary user."
        ) from error
    return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)
