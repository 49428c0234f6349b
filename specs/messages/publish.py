"""Publish a Job from Python, and see what the daemon says. WINDLASS_AMQP_URL names the broker."""

import windlass

job = {
    "apiVersion": "windlass/v1",
    "kind": "Job",
    "metadata": {"name": "from-python"},
    "spec": {"entrypoint": "hello.py"},
}
(answer,) = windlass.publish(job, files={"hello.py": b"print('hello')"}, wait=30)
print(answer.key, answer.verdict, answer.generation)
