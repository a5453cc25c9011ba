"""The data folder: is it there, is it ours, is it private, is there room."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil

from app.cli.doctor.finding import Finding, fail, ok, warn
from app.cli.doctor.subject import Subject

_LITTLE_BYTES, _NONE_BYTES = 2 * 2**30, 200 * 2**20
_FEW_FILES = 1000
_NETWORK = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "fuse.sshfs",
    "9p",
    "afpfs",
    "webdav",
    "ceph",
    "glusterfs",
)
_FORGETFUL = ("tmpfs", "ramfs")


def folder_is_usable(subject: Subject) -> Iterator[Finding]:
    given, data = subject.settings.data_dir, subject.data
    elsewhere = "repair it, or set ORRERY_DATA_DIR to another folder"
    if given.is_symlink() and not data.exists():
        yield fail(
            f"the data folder {str(given)!r} is a link to {str(data)!r}, which does not exist", elsewhere
        )
    elif data.exists() and not data.is_dir():
        yield fail(f"the data folder {str(data)!r} is a file", elsewhere)
    elif not data.exists():
        yield from _can_be_made(data)
    elif not os.access(data, os.R_OK | os.W_OK | os.X_OK):
        yield fail(f"user id {os.geteuid()} may not write the data folder {str(data)!r}", elsewhere)
    else:
        yield from _belongs_to_us(data)


def _can_be_made(data: Path) -> Iterator[Finding]:
    parent = nearest(data)
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        yield ok(f"the data folder {str(data)!r} will be made at the first start")
    else:
        yield fail(
            f"the data folder {str(data)!r} cannot be made in {str(parent)!r}",
            "set ORRERY_DATA_DIR to a folder that this user may write",
        )


def _belongs_to_us(data: Path) -> Iterator[Finding]:
    found = data.stat()
    if found.st_uid != os.geteuid():
        yield warn(
            f"the data folder {str(data)!r} belongs to user id {found.st_uid}, and you are {os.geteuid()}",
            "run Orrery as one user only",
        )
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~(stat.S_IXGRP | stat.S_IXOTH):
        mode = stat.S_IMODE(found.st_mode)
        yield warn(f"others may read the data folder {str(data)!r} (mode {mode:o})", f"chmod 711 {data}")
    else:
        yield ok(f"the data folder is {str(data)!r}")


def secrets_are_private(subject: Subject) -> Iterator[Finding]:
    secrets = subject.data / "secrets"
    kept = [secrets, *_files(secrets), subject.data / "credentials.json", subject.data / "run/services.json"]
    found = [path for path in kept if path.exists()]
    open_ones = [path for path in found if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    for path in open_ones:
        mode = stat.S_IMODE(path.stat().st_mode)
        right = "700" if path.is_dir() else "600"
        yield fail(f"others may use the secrets in {str(path)!r} (mode {mode:o})", f"chmod {right} {path}")
    if found and not open_ones:
        yield ok(f"{len(found)} files and folders with secrets are private")


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def disk_has_room(subject: Subject) -> Iterator[Finding]:
    places = {nearest(subject.data)}
    if (cluster := subject.data / "postgres").is_symlink():
        places.add(nearest(cluster.resolve()))
    for place in sorted(places):
        space = os.statvfs(place)
        free = space.f_bavail * space.f_frsize
        text = f"{free / 2**30:.1f} GB free at {str(place)!r}"
        if free < _NONE_BYTES:
            yield fail(f"only {free // 2**20} MB free at {str(place)!r}", "free some space")
        elif space.f_files and space.f_favail < _FEW_FILES:
            yield fail(
                f"only {space.f_favail} more files fit at {str(place)!r}", "delete files you do not need"
            )
        elif free < _LITTLE_BYTES:
            yield warn(f"only {text}", "free some space before it runs out")
        else:
            yield ok(text)


def file_system_suits(subject: Subject) -> Iterator[Finding]:
    place = nearest(subject.data)
    kind, options = _mounted(place)
    if "ro" in options:
        yield fail(f"the data folder is on a read-only file system ({kind})", "mount it writable")
    elif kind in _NETWORK:
        yield warn(
            f"the data folder is on a network file system ({kind})",
            "PostgreSQL can lose data there: set ORRERY_DATA_DIR to a local disk",
        )
    elif kind in _FORGETFUL:
        yield warn(f"the data folder is in memory ({kind})", "it is lost when this machine restarts")
    else:
        yield ok(f"the file system is {kind or 'of an unknown kind'}")


def _mounted(place: Path) -> tuple[str, list[str]]:
    """Kind and options of the file system that `place` is on."""
    kind, options, depth = "", "", -1
    for partition in psutil.disk_partitions(all=True):
        mount = Path(partition.mountpoint)
        if place.is_relative_to(mount) and len(mount.parts) >= depth:  # the last one mounted hides others
            kind, options, depth = partition.fstype, partition.opts, len(mount.parts)
    return kind, options.split(",")


def nearest(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    while not path.exists():
        path = path.parent
    return path
