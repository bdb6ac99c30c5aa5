"""Runs moto's server, configured for these jobs and without Docker, so each job succeeds at once.

    python -m examples.batch.moto_server

It prints its address, for ``python -m examples.batch --endpoint``.
"""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from moto.server import ThreadedMotoServer

from examples.batch.jobs import ROLE


@contextmanager
def run_moto() -> Iterator[str]:
    """Run a server until the context ends, and return its address."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        _configure(address)
        yield address
    finally:
        server.stop()


def _configure(address: str) -> None:
    request = urllib.request.Request(
        f"{address}/moto-api/config",
        data=json.dumps({"batch": {"use_docker": False}}).encode(),
        method="POST",
    )
    urllib.request.urlopen(request).close()
    iam = boto3.client(
        "iam",
        region_name="us-east-1",
        endpoint_url=address,
        aws_access_key_id="example",
        aws_secret_access_key="example",
    )
    iam.create_role(RoleName=ROLE.rpartition("/")[2], AssumeRolePolicyDocument="{}")
    iam.close()


def main() -> None:
    """Serve until interrupted."""
    with run_moto() as address:
        print(address, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
