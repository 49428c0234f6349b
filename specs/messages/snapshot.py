"""Ask how every object is now, with aio-pika alone. WINDLASS_AMQP_URL names the broker."""

import asyncio
import json
import os

import aio_pika


async def main() -> None:
    async with await aio_pika.connect(os.environ["WINDLASS_AMQP_URL"]) as connection:
        channel = await connection.channel()
        mine = await channel.declare_queue(exclusive=True)
        requests = await channel.get_exchange("windlass.requests", ensure=False)
        question = aio_pika.Message(b'{"kind": "Job"}', reply_to=mine.name)
        await requests.publish(question, "snapshot")
        async with mine.iterator(no_ack=True) as answers:
            async for answer in answers:
                event = json.loads(answer.body)
                if event["type"] == "windlass.snapshot.end.v1":
                    break
                print(event["subject"], event["data"]["health"], flush=True)


asyncio.run(main())
