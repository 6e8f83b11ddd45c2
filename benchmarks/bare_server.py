"""What the embedded server is compared with: starlette and uvicorn with one answer, in a process of its own."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from .measuring import obey


def main() -> None:
    """Answer each request with the JSON that is the first argument."""
    body = json.dumps(json.loads(sys.argv[1])).encode()

    async def answer(request: Request) -> Response:
        return Response(body, media_type="application/json")

    listener = socket.create_server(("127.0.0.1", 0))
    app = Starlette(routes=[Route("/{path:path}", answer)])
    server = uvicorn.Server(uvicorn.Config(app, http=H11Protocol, loop="asyncio", log_config=None, lifespan="off"))
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
    while not server.started:
        time.sleep(0.01)

    def orders(do: str, given: dict[str, Any]) -> Any:
        if do == "url":
            return f"http://127.0.0.1:{listener.getsockname()[1]}"
        return {"at": time.time(), "cpu": time.process_time()}

    obey(orders)


if __name__ == "__main__":
    main()
