"""The token endpoint and the check of bearer tokens."""

from __future__ import annotations

import base64
import hmac
import random
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

import msgspec

from .clock import SECOND, Clock
from .exchange import Reply, Request

if TYPE_CHECKING:
    from .record import Record


def demanded_token(token: str | None) -> str | None:
    """What the server demands, without outer white space; None demands nothing.

    Raises:
        ValueError: it is blank, so that it would let everybody in.
    """
    if token is not None and not token.strip():
        raise ValueError("token: is blank, so it would keep nobody out; give a token, or leave it out")
    return None if token is None else token.strip()


class Tokens:
    """Issues access tokens for client credentials and checks them.

    Any client id will do; the client secret must be the server's token. Where the server demands no
    token, any secret will do as well. Issued tokens end after `lifetime` seconds on the server's clock.
    """

    def __init__(self, token: str | None, clock: Clock, record: Record, rng: random.Random) -> None:
        self._token = demanded_token(token)
        self._clock = clock
        self._record = record
        self._rng = rng
        self._issued: dict[str, int] = {}
        self.lifetime = 3600.0

    def allows(self, request: Request) -> bool:
        """Whether the request carries what the server demands."""
        return self._token is None or self.carried_by(request.headers.get("authorization", ""))

    def carried_by(self, authorization: str) -> bool:
        """Whether the server demands a token and this `Authorization` header carries it."""
        if self._token is None:
            return False
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer":
            return False
        if hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode()):
            return True
        return self._issued.get(given, 0) > self._clock.now_ns()

    def revoke_all(self) -> None:
        """Let every token that was issued be worth nothing from now on."""
        self._issued.clear()

    def issue(self, request: Request) -> Reply:
        """`POST …/oauth/token` with a form of client credentials, or with HTTP basic."""
        try:
            form = {k: v[0] for k, v in parse_qs(request.body.decode("ascii", "replace")).items()}
        except ValueError:
            form = {}
        client, secret = form.get("client_id", ""), form.get("client_secret", "")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                pair = base64.b64decode(given).decode()
            except ValueError:
                pair = ""
            client, _, secret = (unquote(part) for part in pair.partition(":"))
        if form.get("grant_type") != "client_credentials":
            return self._refuse(400, "unsupported_grant_type")
        right = self._token is None or hmac.compare_digest(secret.encode("utf-8", "replace"), self._token.encode())
        if not client or not right:
            return self._refuse(401, "invalid_client")
        token = f"{self._rng.getrandbits(192):048x}"
        self._issued[token] = self._clock.now_ns() + int(self.lifetime * SECOND)
        self._record.tokens += 1
        body = {"access_token": token, "token_type": "bearer", "expires_in": int(self.lifetime)}
        return Reply(200, msgspec.json.encode(body), headers=(("Cache-Control", "no-store"),))

    @staticmethod
    def _refuse(status: int, error: str) -> Reply:
        return Reply(status, msgspec.json.encode({"error": error}))
