"""What the certificates of servers and proxies are checked with."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from typing import NoReturn

import httpx

from ..api.errors import ConfigurationError
from ..settings import Settings
from .proxies import proxy_for

BUNDLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
"""Variables of the environment that name certificate authorities; the first that is set counts."""


@dataclass(frozen=True)
class Contexts:
    """TLS contexts; None for those whom no address of the settings reaches by TLS.

    Attributes:
        for_servers: has the client certificate of the settings.
        for_proxies: has none: that one is for the server alone.
    """

    for_servers: ssl.SSLContext | None = None
    for_proxies: ssl.SSLContext | None = None


def tls_contexts(settings: Settings) -> Contexts:
    """The contexts for all connections of the settings.

    Raises:
        ConfigurationError: a certificate, or a bundle of authorities, cannot be read, or the environment names a proxy
            that is none.
    """
    urls = (settings.base_url, settings.token_url or settings.base_url)
    proxies = [proxy_for(httpx.URL(url)) for url in urls]
    return Contexts(
        for_servers=ssl_context(settings) if any(url.startswith("https") for url in urls) else None,
        for_proxies=ssl_context(settings, cert=False) if any(one and one.under_tls for one in proxies) else None,
    )


def ssl_context(settings: Settings, *, cert: bool = True) -> ssl.SSLContext:
    """A context that checks certificates as the settings say.

    ``verify`` counts as it is given; where it is True, the environment may name the authorities.

    Args:
        settings: say what is trusted.
        cert: whether to load their client certificate.

    Raises:
        ConfigurationError: a certificate, or a bundle of authorities, cannot be read.
    """
    if settings.verify is True:
        context = _context_of_environment()
    elif settings.verify is False:
        context = httpx.create_ssl_context(verify=False)
    else:
        context = _context_of(settings.verify, "verify")
    if cert and settings.cert is not None:
        certificate, key = settings.cert if isinstance(settings.cert, tuple) else (settings.cert, None)
        try:
            context.load_cert_chain(certificate, key, password=_refuse_to_ask)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"cert: no usable client certificate: {error}", field="cert") from None
    return context


def _refuse_to_ask() -> NoReturn:
    """OpenSSL would ask on the terminal, and wait there."""
    raise ConfigurationError(
        "cert: the key of the client certificate is encrypted, and its password cannot be given: "
        "name a file whose key is not encrypted",
        field="cert",
    )


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
