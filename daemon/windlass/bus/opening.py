"""One connection to the broker, opened or closed: below hops 1 and 8."""

from __future__ import annotations

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.connection import make_url

from windlass.bus.address import Address


async def open_connection(
    address: Address, timeout: float, name: str = "windlass"
) -> AbstractConnection:
    """Connect within so many seconds, under a name for the broker's own pages.

    Raises AMQPError, OSError, TimeoutError or RuntimeError. What did not connect is closed here:
    the library would leave that to the garbage collector, which may run where no loop does.
    """
    connection = aio_pika.Connection(
        make_url(address.url()),
        ssl_context=address.context(),
        client_properties={"connection_name": name},
    )
    try:
        await connection.connect(timeout=timeout)
    except BaseException:
        await connection.close()
        raise
    return connection
