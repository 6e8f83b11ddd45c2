"""What a server's certificate is checked with."""

from __future__ import annotations

import os
import ssl

import httpx

from ..api.errors import ConfigurationError
from ..settings import Settings

BUNDLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
"""Variables of the environment that name certificate authorities; the first that is set counts."""


def needs_tls(settings: Settings) -> bool:
    """Whether any address of the settings is reached by TLS."""
    return settings.base_url.startswith("https") or (settings.token_url or "").startswith("https")


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """The context for all connections of the settings; None where none of them uses TLS.

    ``verify`` counts as it is given; where it is True, the environment may name the authorities.

    Raises:
        ConfigurationError: a certificate, or a bundle of authorities, cannot be read.
    """
    if not needs_tls(settings):
        return None
    if settings.verify is True:
        context = _context_of_environment()
    elif settings.verify is False:
        context = httpx.create_ssl_context(verify=False)
    else:
        context = _context_of(settings.verify, "verify")
    if settings.cert is not None:
        pair = settings.cert if isinstance(settings.cert, tuple) else (settings.cert, None)
        try:
            context.load_cert_chain(*pair)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"cert: no usable client certificate: {error}", field="cert") from None
    return context


def _context_of_environment() -> ssl.SSLContext:
    for name in BUNDLES:
        path = os.environ.get(name)
        if path:
            return _context_of(path, f"verify: {name}")
    return httpx.create_ssl_context(verify=True, trust_env=False)


def _context_of(path: str, named: str) -> ssl.SSLContext:
    try:
        if os.path.isdir(path):
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"{named}: no usable CA bundle at {path!r}: {error}", field="verify") from None
