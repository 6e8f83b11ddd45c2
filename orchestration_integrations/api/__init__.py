"""The HTTP API as data: calls, models, errors, definitions. No I/O in this room."""
