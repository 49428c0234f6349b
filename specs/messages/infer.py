"""Ask a model over the broker, with pika alone. WINDLASS_AMQP_URL names the broker."""

import os
import sys
from pathlib import Path

import pika

name, request = sys.argv[1:]
channel = pika.BlockingConnection(pika.URLParameters(os.environ["WINDLASS_AMQP_URL"])).channel()
channel.confirm_delivery()  # with mandatory: an exception says that nobody serves it
mine = channel.queue_declare("", exclusive=True).method.queue
asked = pika.BasicProperties(reply_to=mine, correlation_id="1", expiration="5000")
channel.basic_publish("windlass.infer", name, Path(request).read_bytes(), asked, mandatory=True)
for _, said, answer in channel.consume(mine, auto_ack=True, inactivity_timeout=5):
    print(said.headers["status"] if said else "no answer", (answer or b"").decode())
    break
