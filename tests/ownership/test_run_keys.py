"""Run keys as users give them, and as the package makes them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as some

from orchestration_integrations import MemoryRunStore, OrchestrationHttpHook, ValidationError
from orchestration_integrations.ownership.keys import checked_run_key, structured_key
from tests.scripted import ScriptedServer, respond


@given(some.text())
def test_a_key_is_refused_where_two_would_look_the_same(key):
    fine = key and key == key.strip() and not any(unicodedata.category(char) == "Cc" for char in key)
    if fine:
        assert checked_run_key(key) == key
    else:
        with pytest.raises(ValidationError) as caught:
            checked_run_key(key)
        assert caught.value.path == "run_key"


@pytest.mark.parametrize("key", [None, 17, b"k"])
def test_a_key_is_a_text(key):
    with pytest.raises(ValidationError):
        checked_run_key(key)


def test_a_block_refuses_a_key_before_anything_is_sent():
    with ScriptedServer(lambda _: respond(500)) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        with pytest.raises(ValidationError, match="white space"):
            with hook.owned_run("w", run_key="order-17 ", store=MemoryRunStore(), first_attempt=True):
                pass
        assert server.got == []


def test_a_key_that_the_package_makes_stays_what_it_was():
    assert structured_key(" a dag ", "run\n1", "pay", -1) == " a dag /run%0A1/pay/-1"
