"""What of an endpoint changes in place: replicas, weights, concurrency and tags. Pure.

Compared with what is wanted (``diff``), and told to SageMaker without a new config.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from windlass_adapters.base import Change, Found, TerminalError, Wanted
from windlass_adapters.sagemaker.answers import Answer, number, part, parts, text
from windlass_adapters.sagemaker.names import IDLE_TAG, TRIED_TAG, TTL_TAG
from windlass_schemas import Reason


def detail_of(answer: Answer, tags: Mapping[str, str]) -> dict[str, JsonValue]:
    """What the status shows, and ``diff`` compares."""
    variants: dict[str, JsonValue] = {}
    for variant in parts(answer, "ProductionVariants"):
        serverless = part(variant, "DesiredServerlessConfig") or part(
            variant, "CurrentServerlessConfig"
        )
        held: dict[str, JsonValue] = {
            "weight": number(variant, "DesiredWeight"),
            "replicas": whole(variant, "DesiredInstanceCount"),
            "running": whole(variant, "CurrentInstanceCount"),
        }
        for name in ("MaxConcurrency", "ProvisionedConcurrency"):
            held[name] = whole(serverless, name)
        variants[text(variant, "VariantName")] = {k: v for k, v in held.items() if v is not None}
    shown = {key: value for key, value in tags.items() if key != TRIED_TAG}
    return {
        "status": text(answer, "EndpointStatus"),
        "config": text(answer, "EndpointConfigName"),
        "variants": variants,
        "tags": dict(shown),
    }


def progress_of(answer: Answer) -> str:
    """How far an update is: the instances of the new version, and what is done with them."""
    coming = part(answer, "PendingDeploymentSummary")
    told = []
    for variant in parts(coming, "ProductionVariants"):
        desired = whole(variant, "DesiredInstanceCount")
        stage = next((text(s, "Status") for s in parts(variant, "VariantStatus")), "")
        if desired:
            now = whole(variant, "CurrentInstanceCount") or 0
            doing = f" ({stage})" if stage else ""
            told.append(f"{now} of {desired} instances of {text(variant, 'VariantName')}{doing}")
    return f"; of the new version: {', '.join(told)}" if told else ""


def whole(answer: Answer, name: str) -> int | None:
    found = number(answer, name)
    return None if found is None else int(found)


def in_place(wanted: Wanted, answer: Answer) -> Iterator[dict[str, object]]:
    """What UpdateEndpointWeightsAndCapacities must be told, fleet by fleet."""
    detail = detail_of(answer, {})["variants"]
    desired = wanted.body["variants"]
    assert isinstance(detail, dict)
    assert isinstance(desired, dict)
    for name, fields in desired.items():
        held = detail.get(name)
        if not isinstance(held, dict) or not isinstance(fields, dict):
            continue
        if all(held.get(field) == value for field, value in fields.items()):
            continue
        change: dict[str, object] = {"VariantName": name, "DesiredWeight": fields["weight"]}
        if "replicas" in fields:
            change["DesiredInstanceCount"] = fields["replicas"]
        serverless = {k: v for k, v in fields.items() if k.endswith("Concurrency")}
        if serverless:
            change["ServerlessUpdateConfig"] = serverless
        yield change


def refuse_to_serverless(wanted: Wanted, answer: Answer) -> None:
    """AWS turns serverless capacity into instances, and never back. Raises TerminalError."""
    fleets = wanted.body["fleets"]
    assert isinstance(fleets, dict)
    for variant in parts(answer, "ProductionVariants"):
        had = whole(variant, "DesiredInstanceCount") or whole(variant, "CurrentInstanceCount")
        if had and None in fleets.values():
            raise TerminalError(
                f"endpoint {wanted.name} has instances, and AWS makes no serverless endpoint of"
                " one; choose another spec.options.endpointName, or remove the Deployment first",
                reason=Reason.INVALID_SPEC,
            )


def endpoint_changes(wanted: Wanted, found: Found) -> Iterator[Change]:
    """What the endpoint holds otherwise than wanted, beside its config."""
    held = found.detail.get("endpoint")
    desired, tags = wanted.body["variants"], wanted.body["tags"]
    if not isinstance(held, dict) or not isinstance(desired, dict) or not isinstance(tags, dict):
        return
    variants, labels = held.get("variants"), held.get("tags")
    assert isinstance(variants, dict)
    assert isinstance(labels, dict)
    for name, fields in desired.items():
        now = variants.get(name)
        if not isinstance(fields, dict) or not isinstance(now, dict):
            continue
        for field, value in fields.items():
            if now.get(field) != value:
                path = f"/spec/options/variants/{name}/{field}"
                if len(desired) == 1 and field == "replicas":
                    path = "/spec/replicas"
                yield Change(path, now.get(field), value)
    texts = {key: str(value) for key, value in labels.items()}
    for key, value in retagged({k: str(v) for k, v in tags.items()}, texts).items():
        yield Change(f"/tags/{key}", texts.get(key), value)


def retagged(wanted: Mapping[str, str], held: Mapping[str, str]) -> dict[str, str]:
    """Tags to set. A limit on its life that is declared no longer is emptied: it would be kept."""
    found = {key: value for key, value in wanted.items() if held.get(key) != value}
    return found | {key: "" for key in (TTL_TAG, IDLE_TAG) if held.get(key) and key not in wanted}
