"""One SSH connection to a cluster, for everything: hops 5 and 7.

It is opened when it is first needed, kept, and opened again when it was lost, never faster than
every five seconds. Who speaks to us is verified before any secret is used. Bytes in, bytes out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncssh
import structlog

from windlass_adapters.base import (
    AdapterError,
    AmbiguousError,
    TransientError,
    WaitingError,
)
from windlass_adapters.slurm.counts import Counts
from windlass_adapters.slurm.params import JumpHost, SlurmParams
from windlass_adapters.slurm.trust import config_of, keys_of, trusted, versions_of
from windlass_schemas import Reason

OPEN_TIMEOUT = 30.0
"""Seconds for a connection, through all machines on the way."""
CHANNEL_TIMEOUT = 20.0
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
"""Seconds between two tries to connect; doubles with each failure."""
BANNED_PAUSE = 300.0
"""Seconds between two tries after the account or the host was refused: no storm, no ban."""
_LOCAL_EXTRA = 15.0
"""Seconds that a command has here beyond what it has over there."""

_log = structlog.get_logger("windlass.slurm")


class Connection:
    """Runs commands on the login node. All methods raise AdapterError only."""

    def __init__(self, params: SlurmParams, counts: Counts) -> None:
        self._params = params
        self._counts = counts
        self._open: asyncssh.SSHClientConnection | None = None
        self._jumps: list[asyncssh.SSHClientConnection] = []
        self._opening = asyncio.Lock()
        self._channels = Slots(params.limits.channels)
        self._pause = FIRST_PAUSE
        self._not_before = 0.0
        self._refusal: AdapterError | None = None
        self._trusted: tuple[int, ...] = ()
        """Which versions of the key and of known_hosts the last try was made with."""

    @property
    def opened(self) -> int:
        """How often it was opened so far."""
        return self._counts.authentications

    @property
    def name(self) -> str:
        """How people call the login node."""
        user = f"{self._params.user}@" if self._params.user else ""
        port = f":{self._params.port}" if self._params.port else ""
        return f"{user}{self._params.host}{port}"

    async def run(self, command: str, data: bytes, timeout: float) -> bytes:
        """Run a command with ``data`` on stdin; its stdout. ``timeout`` holds over there too.

        Raises TransientError when it did not run, AmbiguousError when nobody knows.
        """
        async with self._slot() as connection:
            limit = f"timeout -k 5 {timeout:.0f} "
            process = await self._start(connection, limit + command)
            try:
                async with asyncio.timeout(timeout + _LOCAL_EXTRA):
                    out, err = await process.communicate(data)
            except (OSError, asyncssh.Error, TimeoutError) as error:
                raise AmbiguousError(f"{self.name}: the answer was lost ({told(error)})") from None
            finally:
                process.close()
            if process.exit_status is None or process.exit_status in (124, 137):
                # asyncssh returns as if nothing were wrong when the connection is lost.
                why = (
                    "the connection was lost" if process.exit_status is None else "it took too long"
                )
                raise AmbiguousError(f"{self.name}: a command got no answer: {why}")
            if process.exit_status != 0:
                text = bytes(err or b"").decode(errors="replace").strip()[-500:]
                raise CommandError(f"{self.name}: {text or 'no message'}", process.exit_status)
            return bytes(out or b"")

    @asynccontextmanager
    async def files(self) -> AsyncIterator[asyncssh.SFTPClient]:
        """The login node's files, for what is large."""
        async with self._slot() as connection:
            try:
                async with asyncio.timeout(CHANNEL_TIMEOUT):
                    client = await connection.start_sftp_client()
            except (OSError, asyncssh.Error, TimeoutError) as error:
                raise TransientError(f"{self.name}: no file transfer: {told(error)}") from None
            try:
                yield client
            except (OSError, asyncssh.Error) as error:
                raise TransientError(f"{self.name}: the transfer broke: {told(error)}") from None
            finally:
                client.exit()

    async def close(self) -> None:
        """End the connection; nothing over there is ended by that."""
        found = [*([self._open] if self._open else []), *reversed(self._jumps)]
        self._open, self._jumps = None, []
        for connection in found:
            connection.close()
            with suppress(OSError, asyncssh.Error, TimeoutError):
                async with asyncio.timeout(5.0):
                    await connection.wait_closed()

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[asyncssh.SSHClientConnection]:
        async with self._channels:
            yield await self._connected()

    async def _start(
        self, connection: asyncssh.SSHClientConnection, command: str
    ) -> asyncssh.SSHClientProcess[bytes]:
        """Open a channel; with fewer at once from now on if the server allows no more."""
        while True:
            try:
                async with asyncio.timeout(CHANNEL_TIMEOUT):
                    return await connection.create_process(command, encoding=None)
            except asyncssh.ChannelOpenError as error:
                if not self._channels.narrow():
                    await self._drop(connection)
                    raise TransientError(f"{self.name} opens no channel: {told(error)}") from None
                _log.info(
                    "the server allows fewer channels", host=self.name, limit=self._channels.limit
                )
                await self._channels.give_way()
            except (OSError, asyncssh.Error, TimeoutError) as error:
                await self._drop(connection)
                raise TransientError(f"{self.name} was lost: {told(error)}") from None

    async def _drop(self, connection: asyncssh.SSHClientConnection) -> None:
        connection.abort()
        if self._open is connection:
            self._open = None

    async def _connected(self) -> asyncssh.SSHClientConnection:
        async with self._opening:
            if self._open is not None and not self._open.is_closed():
                return self._open
            now = time.monotonic()
            trusted = await asyncio.to_thread(versions_of, self._params)
            if self._refusal is not None and now < self._not_before and trusted == self._trusted:
                raise self._refusal
            self._trusted = trusted
            await self.close()
            try:
                async with asyncio.timeout(OPEN_TIMEOUT):
                    self._open = await self._connect()
            except (OSError, asyncssh.Error, TimeoutError, ValueError) as error:
                self._refusal = self._refused(error)
                pause = BANNED_PAUSE if self._refusal.reason is Reason.UNAUTHORIZED else self._pause
                self._not_before = time.monotonic() + pause
                self._pause = min(self._pause * 2, LONGEST_PAUSE)
                raise self._refusal from None
            self._pause, self._refusal = FIRST_PAUSE, None
            self._channels.limit = self._params.limits.channels
            self._counts.authentications += 1
            _log.info("connected", host=self.name)
            return self._open

    def _refused(self, error: Exception) -> AdapterError:
        match error:
            case asyncssh.HostKeyNotVerifiable() | asyncssh.KeyExchangeFailed():
                port = f"-p {self._params.port} " if self._params.port else ""
                message = (
                    f"{self.name} cannot prove who it is ({told(error)}); nothing was sent."
                    f" Compare what ssh-keyscan {port}{self._params.host} prints with what its"
                    " admins say, then put it into params.hostKey or known_hosts"
                )
                return WaitingError(message, reason=Reason.UNAUTHORIZED)
            case (
                asyncssh.PermissionDenied()
                | asyncssh.KeyImportError()
                | asyncssh.KeyEncryptionError()
            ):
                message = (
                    f"{self.name} does not let us in ({told(error)}); check params.user, params.key"
                    f" and params.passphrase. Tried again in {BANNED_PAUSE / 60:.0f} min, or when"
                    " one changes"
                )
                return WaitingError(message, reason=Reason.UNAUTHORIZED)
        return TransientError(f"{self.name} cannot be reached: {told(error)}")

    async def _connect(self) -> asyncssh.SSHClientConnection:
        params = self._params
        hosts = [
            *params.jump_hosts,
            JumpHost(host=params.host, port=params.port or 22, user=params.user),
        ]
        keys = await asyncio.to_thread(keys_of, params)
        tunnel: asyncssh.SSHClientConnection | None = None
        for number, host in enumerate(hosts):
            last = number == len(hosts) - 1
            options: dict[str, object] = {"client_keys": keys} if keys else {}
            if host.user:
                options["username"] = host.user
            if not last or params.port:
                options["port"] = host.port
            if tunnel is not None:
                options["tunnel"] = tunnel
            found = await asyncssh.connect(
                host.host,
                config=config_of(params),
                known_hosts=trusted(params, host.host, last),
                keepalive_interval=15,
                keepalive_count_max=3,
                login_timeout=OPEN_TIMEOUT,
                connect_timeout=OPEN_TIMEOUT / 2,
                utf8_decode_errors="replace",
                **options,
            )
            if not last:
                self._jumps.append(found)
            tunnel = found
        assert tunnel is not None
        return tunnel


class CommandError(TransientError):
    """A command ran and said no."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Slots:
    """A bound on how much goes on at once, that can be made narrower on the way."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0
        self._freed = asyncio.Condition()

    async def __aenter__(self) -> None:
        async with self._freed:
            await self._freed.wait_for(lambda: self._held < self.limit)
            self._held += 1

    async def __aexit__(self, *exc: object) -> None:
        async with self._freed:
            self._held -= 1
            self._freed.notify_all()

    def narrow(self) -> bool:
        """Allow only what is open beside the caller's own; False when nothing else is open."""
        if self._held <= 1:
            return False
        self.limit = max(1, min(self.limit, self._held) - 1)
        return True

    async def give_way(self) -> None:
        """Let go of a slot and wait for one again."""
        await self.__aexit__()
        await self.__aenter__()


def told(error: Exception) -> str:
    """An exception in words."""
    return " ".join(str(error).split()) or type(error).__name__
