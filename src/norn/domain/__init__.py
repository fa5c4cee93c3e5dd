"""Pure decisions: no I/O, no clock. A decision is a value that says why."""
