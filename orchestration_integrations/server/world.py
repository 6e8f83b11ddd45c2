"""Tell a running server what happens around it.

    python -m orchestration_integrations.server.world URL "workers stopped"

Needs nothing but the standard library. What can be told: `workers|engine|database|ledger|wallets|payments
stopped|started`, and `publish {json}`. The server must have been started with faults. Exit status 1 if it refuses.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request


def main(arguments: list[str]) -> int:
    """The command; returns its exit status."""
    if len(arguments) < 2 or not arguments[0].startswith(("http://", "https://")):
        sys.stderr.write("usage: python -m orchestration_integrations.server.world URL WHAT\n")
        return 2
    url, what = arguments[0].rstrip("/"), " ".join(arguments[1:])
    request = urllib.request.Request(  # noqa: S310
        f"{url}/_control/world",
        data=json.dumps({"what": what}).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=30):  # noqa: S310
            return 0
    except urllib.error.HTTPError as error:
        sys.stderr.write(f"{error.code} {error.read().decode('utf-8', 'replace')}\n")
    except OSError as error:
        sys.stderr.write(f"{error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
