"""`orrery doctor`: looks at everything that the platform leans on, and says what to do about it."""
