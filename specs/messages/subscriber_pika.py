"""Follow the status events, with pika alone. WINDLASS_AMQP_URL names the broker."""

import json
import os

import pika

channel = pika.BlockingConnection(pika.URLParameters(os.environ["WINDLASS_AMQP_URL"])).channel()
queue = channel.queue_declare("", exclusive=True).method.queue
channel.queue_bind(queue, "windlass.events", "windlass.#")
for _, _, body in channel.consume(queue, auto_ack=True):
    event = json.loads(body)
    print(event["subject"], event["data"]["reason"], flush=True)
