"""PostgreSQL with pgvector and Redis for one machine: launch, wait, repair, stop."""

from app.embedded.failures import explained
from app.embedded.leftovers import end_processes, find_leftovers, find_workers
from app.embedded.places import make_data_folder
from app.embedded.services import Services, open_services
from app.embedded.services_file import (
    ServicesFile,
    read_services_file,
    remove_services_file,
    write_services_file,
)

__all__ = [
    "Services",
    "ServicesFile",
    "end_processes",
    "explained",
    "find_leftovers",
    "find_workers",
    "make_data_folder",
    "open_services",
    "read_services_file",
    "remove_services_file",
    "write_services_file",
]
