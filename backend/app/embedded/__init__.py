"""PostgreSQL with pgvector and Redis for one machine: launch, wait, repair, stop."""

from app.embedded.account import NAMED_USER, name_fault
from app.embedded.binaries import installed_postgres, installed_redis
from app.embedded.failures import ServiceLost, explained
from app.embedded.leftovers import end_processes, find_leftovers, find_workers
from app.embedded.lock import lock_left_by
from app.embedded.places import make_data_folder
from app.embedded.ports import why_not_listen
from app.embedded.private import write_private
from app.embedded.services import Services, open_services
from app.embedded.services_file import (
    ServicesFile,
    read_services_file,
    remove_services_file,
    write_services_file,
)

__all__ = [
    "NAMED_USER",
    "ServiceLost",
    "Services",
    "ServicesFile",
    "end_processes",
    "explained",
    "find_leftovers",
    "find_workers",
    "installed_postgres",
    "installed_redis",
    "lock_left_by",
    "make_data_folder",
    "name_fault",
    "open_services",
    "read_services_file",
    "remove_services_file",
    "why_not_listen",
    "write_private",
    "write_services_file",
]
