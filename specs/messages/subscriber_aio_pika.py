"""Follow the status events, with aio-pika alone. WINDLASS_AMQP_URL names the broker."""

import asyncio
import json
import os

import aio_pika


async def main() -> None:
    async with await aio_pika.connect_robust(os.environ["WINDLASS_AMQP_URL"]) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind("windlass.events", "windlass.#")  # or windlass.job.*.*.ready
        async with queue.iterator(no_ack=True) as messages:
            async for message in messages:
                event = json.loads(message.body)
                print(
                    event["subject"],
                    event["data"]["condition"],
                    event["data"]["reason"],
                    flush=True,
                )


asyncio.run(main())
