"""`python -m app.cli`: the command `orrery`."""

from app.cli import main

main()
