"""Keys made of parts, so that no two lists of parts give one text."""

from __future__ import annotations

from urllib.parse import quote


def structured_key(*parts: object) -> str:
    """The parts, each percent-encoded, joined by slashes: ``dag/scheduled__2030-01-01T00%3A00%3A00/pay/-1``.

    A part that contains a slash, a tilde or a percent sign is told apart from several parts.
    """
    return "/".join(quote(str(part), safe=" .:+@=,").replace("~", "%7E") for part in parts)
