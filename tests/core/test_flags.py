"""A flag is True or False: a text such as ``"false"`` would count as true, and pay anew after a failure."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from orchestration_integrations import MemoryRunStore, OrchestrationHttpHook, ValidationError
from orchestration_integrations.server import EmbeddedServer
from tests.conftest import open_hook

PAYS = {
    "name": "pays",
    "stages": [
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "shop"}},
                "amount": {"amount": 1, "asset": "EUR/2"},
            }
        }
    ],
}
CALLS: dict[str, tuple[Any, ...]] = {
    "run_once": (PAYS,),
    "start": ("11111111-1111-4111-8111-111111111111",),
    "run_workflow": ("11111111-1111-4111-8111-111111111111",),
    "ensure_workflow": (PAYS,),
    "list_instances": (),
}
KEYED: dict[str, dict[str, Any]] = {"run_once": {"run_key": "k"}, "start": {"run_key": "k"}}
MORE = {"run_once": ("allow_unbound", "strict_variables")}
FLAGS = [
    (call, name)
    for call in CALLS
    for name in [
        *(
            name
            for name, parameter in inspect.signature(getattr(OrchestrationHttpHook, call)).parameters.items()
            if str(parameter.annotation).startswith("bool")
        ),
        *MORE.get(call, ()),
    ]
]


def test_the_calls_have_flags() -> None:
    assert len(FLAGS) >= 12


@pytest.mark.parametrize("value", ["false", "no", 1])
@pytest.mark.parametrize(("call", "name"), FLAGS)
def test_a_flag_that_is_neither_true_nor_false_is_refused_before_anything_is_sent(
    kind: str, call: str, name: str, value: Any
) -> None:
    keyed = dict(KEYED.get(call, {}))
    if call == "run_once":
        keyed["store"] = MemoryRunStore()
    with EmbeddedServer(2) as server, open_hook(kind, base_url=server.url) as hook:
        with pytest.raises(ValidationError, match="must be True or False") as caught:
            getattr(hook, call)(*CALLS[call], **keyed, **{name: value})
        assert caught.value.path == name
        assert not server.record().requests
