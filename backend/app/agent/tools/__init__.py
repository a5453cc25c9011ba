"""Tools that a project registers: what each kind offers, and how it is called."""
