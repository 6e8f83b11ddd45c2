"""Pay an order once, from cron, a notebook, a Dagster op or a Celery task.

Run it again after a crash, a kill or a time-out: it goes on with the payment that it had begun, or tells how that one
ended. The same order with another amount is an error.

    ORCHESTRATION_URL=http://127.0.0.1:8080 python example_scripts/pay_once.py order-17 1250 --store runs.db
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from orchestration_integrations import AmbiguousRunError, KeyReusedError, OrchestrationHttpHook, SqliteRunStore

PAYOUT = {
    "name": "payout",
    "stages": [
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "merchants:${merchant}"}},
                "amount": {"amount": "${amount}", "asset": "EUR/2"},
            }
        }
    ],
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Pay, and say what is true: 0 paid, 1 not paid, 3 unknown."""
    parser = argparse.ArgumentParser(description="Pay an order once.")
    parser.add_argument("order")
    parser.add_argument("amount", type=int, help="in cents")
    parser.add_argument("--merchant", default="m1")
    parser.add_argument("--store", default="runs.db", help="file that keeps the records of all orders")
    parser.add_argument("--settled", help="the token that an earlier run of this script printed")
    given = parser.parse_args(arguments)
    with OrchestrationHttpHook() as hook:  # ORCHESTRATION_URL and the other variables of the environment
        try:
            result = hook.run_once(
                PAYOUT,
                {"merchant": given.merchant, "amount": given.amount},
                run_key=given.order,
                store=SqliteRunStore(given.store),
                settled=given.settled,
                timeout=600,
            )
        except KeyReusedError as error:
            print(f"{given.order} stands for another payment: {error}", file=sys.stderr)
            return 1
        except AmbiguousRunError as error:
            print(f"look at the instances {', '.join(error.candidates) or '(none seen)'}: {error}", file=sys.stderr)
            return 3
    print(f"{given.order} is paid by instance {result.instance.id}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
