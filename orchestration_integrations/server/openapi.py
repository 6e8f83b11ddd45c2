"""The server's own description of its API."""

from __future__ import annotations

from typing import Any


def document(generation: int) -> dict[str, Any]:
    """An OpenAPI 3 document of what this generation serves."""
    return {"openapi": "3.0.3", "info": {"title": "orchestration", "version": str(generation)}, "paths": {}}
