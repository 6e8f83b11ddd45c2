"""Options that every face refuses before it sends anything, each with the name that the error gives."""

from __future__ import annotations

from typing import Any

WRONG_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"timeout": -1}, "timeout"),
    ({"poll_interval": 0}, "poll_interval"),
    ({"read_budget": -1}, "read_budget"),
    ({"fail_after_attempts": 0}, "fail_after_attempts"),
    ({"on_timeout": "stop"}, "on_timeout"),
    ({"on_changed": "ignore"}, "on_changed"),
    ({"fingerprint_ignores": "at"}, "fingerprint_ignores"),
    ({"run_key": "order-17 "}, "run_key"),
    ({"run_key": "order\n17"}, "run_key"),
]
