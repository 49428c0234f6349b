"""The rig's broker and fault proxy do what the tests of the bus lean on."""

from __future__ import annotations

import asyncio
import ssl

import aio_pika
import pytest

from rig.fault_proxy import FaultProxy
from rig.rabbitmq import Broker


async def test_a_message_comes_back_in_the_clear_and_encrypted(broker: Broker) -> None:
    """Both listeners work, and the certificate is good for those who trust the authority."""
    vhost = broker.vhost()
    context = ssl.create_default_context(cafile=str(broker.certificates.authority))
    secure = f"amqps://guest:guest@127.0.0.1:{broker.tls_port}/{vhost}"
    sender = await aio_pika.connect(broker.url(vhost), timeout=20)
    receiver = await aio_pika.connect(secure, ssl_context=context, timeout=20)
    async with sender, receiver:
        channel = await sender.channel()
        queue = await channel.declare_queue("q", durable=True)
        message = aio_pika.Message(b"hello")
        await channel.default_exchange.publish(message, "q", timeout=20)
        far = await (await receiver.channel()).get_queue(queue.name)
        found = await far.get(timeout=20)
        assert found is not None
        assert found.body == b"hello"
    assert broker.queue_depth(vhost, "q") in (0, 1)


async def test_the_proxy_cuts_stalls_and_refuses(broker: Broker) -> None:
    """A client sees a reset, silence, and a closed port."""
    vhost = broker.vhost()
    async with FaultProxy(broker.port) as proxy:
        url = f"amqp://guest:guest@127.0.0.1:{proxy.port}/{vhost}"
        connection = await aio_pika.connect(url, timeout=20)
        closed = asyncio.Event()
        connection.close_callbacks.add(lambda *_: closed.set())
        assert proxy.connections == 1
        proxy.cut()
        async with asyncio.timeout(20):
            await closed.wait()
        proxy.stall()
        with pytest.raises(TimeoutError):
            await aio_pika.connect(url, timeout=0.2)
        proxy.resume()
        proxy.refuse()
        with pytest.raises(OSError, match="Connect call failed"):
            await aio_pika.connect(url, timeout=20)
