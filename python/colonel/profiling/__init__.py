"""Recording from Python: one module a framework."""
