"""Files to text. Nothing is imported here: a parsing child must start in tens of milliseconds."""
