"""What OpenLineage is told of a run: the accounts as datasets, and a facet with what names the run and what it moved.

OpenLineage's provider asks for it when a task has ended. This module is imported then and not before, nothing is read
from the server for it, and it holds neither variables nor credentials.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import attr

from ..api.models import Moved, Transaction
from ..procedures.wording import MOST_TRANSACTIONS
from ..version import __version__
from .compat import first_of

if TYPE_CHECKING:
    from .task_run import TaskRun

OperatorLineage = first_of("OperatorLineage", "airflow.providers.openlineage.extractors")
try:
    from openlineage.client.event_v2 import Dataset
    from openlineage.client.facet_v2 import RunFacet
except ImportError:  # the provider is not installed
    OperatorLineage = Dataset = None
    RunFacet = object

FACET = "orchestration_run"
PRODUCER = f"urn:orchestration-integrations:{__version__}"
SCHEMA = "urn:orchestration-integrations:facets:1-0-0:OrchestrationRunFacet"


@attr.define
class OrchestrationRunFacet(RunFacet):  # type: ignore[misc]
    """A run, and the money that it moved.

    Attributes:
        runKey: names the payment.
        instanceId, workflowId: of the run; None where none is known.
        server: base URL of the server, without credentials.
        state: ``succeeded``, ``failed``, ``cancelled`` or ``running`` as the task has last read it; None where it has
            not.
        postings: each movement: ``stage``, ``transaction``, ``ledger``, ``source``, ``destination``, ``asset`` and
            ``amount`` (a text), of the first hundred transactions.
        totals: by ``ledger``, ``account`` and ``asset``, over all transactions: what the account ``sent`` and
            ``received`` (texts).
        transactionsLeftOut: transactions that ``postings`` does not name.
        maybeRepeated: the server may have paid something twice: check the ledger.
        complete: False where there may be more than what could be read.
    """

    runKey: str
    instanceId: str | None
    workflowId: str | None
    server: str
    state: str | None
    postings: list[dict[str, Any]]
    totals: list[dict[str, Any]]
    transactionsLeftOut: int
    maybeRepeated: bool
    complete: bool

    _additional_skip_redact = ("instanceId", "workflowId", "state")

    @staticmethod
    def _get_schema() -> str:
        return SCHEMA


def lineage_of(run: TaskRun) -> Any:
    """The lineage of a try, as OpenLineage's provider takes it; None without that provider, or where nothing is known.

    Args:
        run: the try, after its end.
    """
    if OperatorLineage is None or run.run is None:
        return None
    owned, moved = run.run, run.moved
    transactions: Sequence[Transaction] = () if moved is None else moved.transactions
    named = transactions[:MOST_TRANSACTIONS]
    server = _without_credentials(run.http.settings.base_url)
    postings = list(_postings(named))
    facet = OrchestrationRunFacet(
        producer=PRODUCER,
        runKey=owned.request.run_key,
        instanceId=owned.instance_id,
        workflowId=None if owned.record is None else owned.record.workflow_id or None,
        server=server,
        state=run.state,
        postings=postings,
        totals=_totals(_postings(transactions)),
        transactionsLeftOut=len(transactions) - len(named),
        maybeRepeated=any(one.maybe_repeated for one in transactions),
        complete=_is_complete(moved),
    )
    namespace = f"formance://{server.partition('://')[2]}"
    return OperatorLineage(
        inputs=_accounts(namespace, postings, "source"),
        outputs=_accounts(namespace, postings, "destination"),
        run_facets={FACET: facet},
    )


def _is_complete(moved: Moved | None) -> bool:
    return moved is not None and moved.complete


def _without_credentials(base_url: str) -> str:
    parts = urlsplit(base_url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _postings(transactions: Iterable[Transaction]) -> Iterable[dict[str, Any]]:
    for one in transactions:
        for posting in one.postings:
            yield {
                "stage": one.stage,
                "transaction": one.id,
                "ledger": one.ledger,
                **{name: posting.get(name) for name in ("source", "destination", "asset")},
                "amount": str(posting.get("amount")),
            }


def _totals(postings: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: dict[tuple[Any, Any, Any], dict[str, int]] = {}
    for one in postings:
        if not one["amount"].isdecimal():
            continue  # postings names it all the same
        for side, what in (("source", "sent"), ("destination", "received")):
            total = found.setdefault((one["ledger"], one[side], one["asset"]), {"sent": 0, "received": 0})
            total[what] += int(one["amount"])
    return [
        {"ledger": ledger, "account": account, "asset": asset, **{name: str(value) for name, value in total.items()}}
        for (ledger, account, asset), total in found.items()
    ]


def _accounts(namespace: str, postings: Iterable[Mapping[str, Any]], side: str) -> list[Any]:
    names = (f"{one['ledger']}/{one[side]}" if one["ledger"] else one[side] for one in postings if one[side])
    return [Dataset(namespace=namespace, name=name) for name in dict.fromkeys(names)]
