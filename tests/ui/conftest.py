"""A server, a hook of it, and a gateway before it, where a test has none of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestration_integrations import OrchestrationHttpHook
from orchestration_integrations.server import EmbeddedServer
from tests.ui.gateway import Gateway


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def hook(server: EmbeddedServer) -> Iterator[OrchestrationHttpHook]:
    with OrchestrationHttpHook(base_url=server.url) as hook:
        yield hook


@pytest.fixture
def gateway(server: EmbeddedServer) -> Iterator[Gateway]:
    with Gateway(server.url) as gateway:
        yield gateway
