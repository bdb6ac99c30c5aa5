"""A small server of the Batch API, as botocore's client speaks it.

    python -m examples.batch.server [--port 0] [--seed 1] [--seconds 30] [--fail 0.02] [--throttle 0.1] ...

Prints its address.  ``GET /truth`` tells, as JSON, what was submitted, how often, and how each job ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os

from aiohttp import web

from examples.batch.conduct import Conduct, Fault, Faults, add_options, from_options
from examples.batch.ledger import ClientError, Ledger


def application(conduct: Conduct) -> web.Application:
    """The service, with its books and its faults."""
    ledger = Ledger(conduct)
    faults = Faults(conduct)

    async def carry_out(request: web.Request) -> web.Response:
        asked = json.loads(await request.read() or b"{}")
        fault = faults.draw()
        if fault is Fault.THROTTLED:
            return _error(429, "TooManyRequestsException", "Too Many Requests")
        if fault is Fault.REFUSED:
            return _error(500, "ServerException", "Internal Server Error")
        try:
            answer = ledger.carry_out(request.match_info["operation"], asked)
        except ClientError as error:
            return _error(400, "ClientException", str(error))
        if fault is Fault.LOST:
            return _error(500, "ServerException", "Internal Server Error")
        return web.json_response(answer)

    async def truth(_: web.Request) -> web.Response:
        counts = {fault.name.lower(): count for fault, count in faults.counts.items()}
        return web.json_response({**ledger.truth(), "faults": counts})

    made = web.Application()
    made.router.add_post("/v1/{operation}", carry_out)
    made.router.add_get("/truth", truth)
    return made


def _error(status: int, name: str, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status, headers={"x-amzn-ErrorType": name})


async def serve(conduct: Conduct, port: int) -> None:
    """For ever."""
    runner = web.AppRunner(application(conduct), access_log=None)
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
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--core", type=int, help="processor to stay on")
    add_options(parser, Conduct())
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    try:
        asyncio.run(serve(from_options(options), options.port))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
