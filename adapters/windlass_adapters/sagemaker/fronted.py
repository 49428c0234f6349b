"""The program of a Lambda front, and its archive. Pure.

It runs in AWS, with what AWS's runtime brings; nothing here imports it. The endpoint's name comes
from its environment, so that a new endpoint is a new setting and no new program.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile

PROGRAM = '''\
"""Pass a request on to one SageMaker endpoint. Made and kept by Windlass."""

import base64
import json
import os

import boto3

ENDPOINT = os.environ["ENDPOINT_NAME"]
LARGEST = int(os.environ["MAX_BODY"])
runtime = boto3.client("sagemaker-runtime")


def handler(event, context):
    """An HTTP event with a body, or an event that is the body itself."""
    event = event if isinstance(event, dict) else {"body": json.dumps(event)}
    http = "body" in event
    body = (event["body"] or "") if http else json.dumps(event)
    raw = base64.b64decode(body) if event.get("isBase64Encoded") is True else body.encode()
    if len(raw) > LARGEST:
        return answer(413, json.dumps({"error": f"a request may have {LARGEST} bytes"}))
    headers = {k.lower(): v for k, v in (event.get("headers") or {}).items()} if http else {}
    kind = headers.get("content-type", "application/json")
    try:
        found = runtime.invoke_endpoint(EndpointName=ENDPOINT, ContentType=kind, Body=raw)
    except runtime.exceptions.ModelError as error:
        said = error.response
        return answer(said.get("OriginalStatusCode", 500), said.get("OriginalMessage", ""))
    except Exception as error:  # what AWS says is for the log, not for whoever asks
        print(json.dumps({"endpoint": ENDPOINT, "error": repr(error)}))
        return answer(503, json.dumps({"error": "the model does not answer"}))
    return answer(200, found["Body"].read().decode(), found["ContentType"])


def answer(status, body, kind="application/json"):
    return {"statusCode": status, "headers": {"content-type": kind}, "body": body}
'''


def archive() -> bytes:
    """The program as Lambda takes it: always the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as made:
        member = zipfile.ZipInfo("index.py", (1980, 1, 1, 0, 0, 0))
        member.external_attr = 0o644 << 16
        made.writestr(member, PROGRAM)
    return buffer.getvalue()


def checksum() -> str:
    """As Lambda tells it: ``CodeSha256``."""
    return base64.b64encode(hashlib.sha256(archive()).digest()).decode()
