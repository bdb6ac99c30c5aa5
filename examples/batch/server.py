"""A small server with the part of the Batch API that botocore's client uses here.

    python -m examples.batch.server [--port 0] [--seed 1] [--seconds 30] [--fail 0.02] [--throttle 0.1] ...

It prints its address.  GET /truth returns, as JSON, what was submitted, how often, and how each job ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os

from aiohttp import web

from examples.batch.behavior import Behavior, Fault, Faults, add_options, from_options
from examples.batch.service import BatchService, ClientError


def application(behavior: Behavior) -> web.Application:
    """Return the web application: the simulated service with its faults."""
    service = BatchService(behavior)
    faults = Faults(behavior)

    async def handle(request: web.Request) -> web.Response:
        asked = json.loads(await request.read() or b"{}")
        fault = faults.draw()
        if fault is Fault.THROTTLED:
            return _error(429, "TooManyRequestsException", "Too Many Requests")
        if fault is Fault.REJECTED:
            return _error(500, "ServerException", "Internal Server Error")
        try:
            answer = service.call(request.match_info["operation"], asked)
        except ClientError as error:
            return _error(400, "ClientException", str(error))
        if fault is Fault.LOST:
            return _error(500, "ServerException", "Internal Server Error")
        return web.json_response(answer)

    async def truth(_: web.Request) -> web.Response:
        counts = {fault.name.lower(): count for fault, count in faults.counts.items()}
        return web.json_response({**service.truth(), "faults": counts})

    app = web.Application()
    app.router.add_post("/v1/{operation}", handle)
    app.router.add_get("/truth", truth)
    return app


def _error(status: int, name: str, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status, headers={"x-amzn-ErrorType": name})


async def serve(behavior: Behavior, port: int) -> None:
    """Serve until cancelled."""
    runner = web.AppRunner(application(behavior), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    host, port = runner.addresses[0][:2]
    print(f"http://{host}:{port}", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0, help="0: any free port (default)")
    parser.add_argument("--core", type=int, help="processor to run on")
    add_options(parser, Behavior())
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    try:
        asyncio.run(serve(from_options(options), options.port))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
