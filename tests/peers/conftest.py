"""These need other people's packages, which only the environment ``peers`` has."""

from __future__ import annotations

import importlib.util

collect_ignore = [
    name
    for name, package in (("test_sdk.py", "formance_sdk_python"), ("test_openapi.py", "schemathesis"))
    if importlib.util.find_spec(package) is None
]
