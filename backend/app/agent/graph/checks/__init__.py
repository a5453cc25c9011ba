"""One module per kind of finding; each adds to `Findings` and raises nothing."""
