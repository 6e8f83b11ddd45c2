"""Pay an order, and cancel the payment where a step of your own fails while it runs.

ORCHESTRATION_URL=http://127.0.0.1:8080 python example_scripts/pay_in_a_block.py order-18 1250 --store runs.db
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from orchestration_integrations import OrchestrationHttpHook, SqliteRunStore

PAYOUT = {
    "name": "payout after a moment",
    "stages": [
        {"delay": {"duration": "1s"}},
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "merchants:${merchant}"}},
                "amount": {"amount": "${amount}", "asset": "EUR/2"},
            }
        },
    ],
}


def reserve_stock(order: str) -> None:
    """A step of your own. If it raises, the payment is cancelled."""
    print(f"stock is reserved for {order}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Pay beside a step of your own."""
    parser = argparse.ArgumentParser(description="Pay an order beside a step of your own.")
    parser.add_argument("order")
    parser.add_argument("amount", type=int, help="in cents")
    parser.add_argument("--merchant", default="m1")
    parser.add_argument("--store", default="runs.db", help="file that keeps the records of all orders")
    given = parser.parse_args(arguments)
    variables = {"merchant": given.merchant, "amount": given.amount}
    with OrchestrationHttpHook() as hook:
        store = SqliteRunStore(given.store)
        with hook.owned_run(PAYOUT, variables, run_key=given.order, store=store, timeout=600) as run:
            reserve_stock(given.order)
    print(f"{given.order} is paid by instance {run.instance_id}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
