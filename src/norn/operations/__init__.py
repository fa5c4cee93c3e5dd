"""What survives a crash: the engine, and one module per operation, whose steps read from top to bottom."""
