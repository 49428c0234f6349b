"""``SageMakerDouble``: an AWS account on the loopback, for real clients to talk to.

async with SageMakerDouble() as aws:
    async with aws.client("sagemaker") as sagemaker:
        await sagemaker.create_model(...)
    aws.clock.advance(minutes=5)
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AbstractAsyncContextManager
from functools import cache
from typing import Any, Self

import aioboto3
from aiohttp import web
from botocore.config import Config

from rig.sagemaker.account import REGION, Account, Plan
from rig.sagemaker.foreign import Foreign
from rig.sagemaker.front import Front
from rig.sagemaker.iam import Iam
from rig.sagemaker.inprocess import InProcess
from rig.sagemaker.monitor import Monitor
from rig.sagemaker.others import Others
from rig.sagemaker.runtime import Container
from rig.sagemaker.signing import Credentials
from rig.sagemaker.timeline import Clock, Timeline

LIMIT = 64 << 20
"""Bytes of a request."""
_NUMBERS = itertools.count(100_000_000_001)


class SageMakerDouble:
    """One account in one region. Several may run side by side, each on a port of its own."""

    def __init__(
        self,
        *,
        region: str = REGION,
        clock: Clock | None = None,
        seed: int = 0,
        number: str | None = None,
    ) -> None:
        """``number`` is the account's; by default one that no other has."""
        self.clock = Timeline(clock)
        self.account = Account(number or str(next(_NUMBERS)), self.clock, seed)
        self.account.region = region
        principal = f"arn:aws:sts::{self.account.number}:assumed-role/windlass/daemon"
        self.credentials = Credentials("AKIAWINDLASS", "a-secret-that-signs", principal)
        self.front = Front(self.account, {self.credentials.access_key: self.credentials})
        self.faults, self.calls = self.front.faults, self.front.calls
        self.others = Others(self.account.number, region, self.front.credentials, self.clock)
        self.front.others = self.others
        self.account.on_output = self.others.leave
        self.account.functions = self.others.functions
        self.url = ""
        """Where every service is reached; known once it is entered."""
        self.iam = Iam(self.account, principal)
        self.front.permits = self.iam.permits
        self.monitor = Monitor(self.account)
        self.front.watches.append(self.monitor)
        self.foreign = Foreign(self.front)
        self._runner: web.ServerRunner | None = None

    @property
    def region(self) -> str:
        """Where the account is."""
        return self.account.region

    @property
    def environment(self) -> dict[str, str]:
        """What makes any AWS client of another process talk to this one."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": self.credentials.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def session(self) -> aioboto3.Session:
        """A session with the account's credentials."""
        return _session(self.credentials.access_key, self.credentials.secret_key, self.region)

    def client(self, service: str, **more: Any) -> AbstractAsyncContextManager[Any]:
        """A real client of a service, whose own retries are off."""
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=5,
            read_timeout=20,
            max_pool_connections=50,
        )
        given = {"endpoint_url": self.url, "config": config, **more}
        made: AbstractAsyncContextManager[Any] = self.session().client(service, **given)
        return made

    def in_process(self) -> InProcess:
        """The adapter's own port to AWS, without HTTP in between."""
        return InProcess(self.front, self.credentials)

    def plan(self, what: str, name: str = "*", **how: Any) -> Plan:
        """Decide how the next thing of a sort turns out: see ``Plan``."""
        made = Plan(what, name, **how)
        self.account.plans.append(made)
        return made

    def serve(self, container: Container, endpoint: str = "*") -> None:
        """Put a container behind endpoints, by a glob over their names."""
        self.front.runtime.containers.insert(0, (endpoint, container))

    def expire_credentials(self) -> None:
        """Nothing is answered any more but that the token has expired, until ``renew``."""
        self.front.expired = True

    def renew(self) -> None:
        """The credentials are good again."""
        self.front.expired = False

    async def __aenter__(self) -> Self:
        server = web.Server(self.front, request_factory=_request, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
        await self.others.forget()
        if exc[0] is None:
            assert not self.front.broken, f"the double is wrong: {self.front.broken}"


@cache
def _session(access_key: str, secret_key: str, region: str) -> aioboto3.Session:
    """One for all tests of a process: to read the service models takes most of a second."""
    return aioboto3.Session(
        aws_access_key_id=access_key, aws_secret_access_key=secret_key, region_name=region
    )


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    """A request that may be as large as a part of an upload; aiohttp's own words in between."""
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=LIMIT)
