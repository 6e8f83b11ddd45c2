"""The name that somebody may have meant by another one."""

from __future__ import annotations

from collections.abc import Iterable

OTHER_WORDS = {
    **dict.fromkeys(("url", "uri", "host", "hostname", "server", "endpoint", "address", "server_url"), "base_url"),
    **dict.fromkeys(("api_key", "apikey", "access_token", "bearer", "bearer_token"), "token"),
    **dict.fromkeys(("secret", "password"), "client_secret"),
    **dict.fromkeys(("ssl", "ssl_verify", "tls", "tls_verify"), "verify"),
}
"""What others call our settings. By its letters alone such a word may be most like another setting."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """`` (did you mean …?)`` for the known name that is most like this one; empty where none is like it."""
    import difflib  # now: only a mistake needs it

    names = list(known)
    other = OTHER_WORDS.get(str(name).lower())
    found = [other] if other in names else difflib.get_close_matches(str(name), names, n=1)
    return f" (did you mean {found[0]}?)" if found else ""
