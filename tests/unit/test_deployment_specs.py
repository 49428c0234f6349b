"""What a Deployment may say, and what the local adapter refuses of it rather than ignore."""

from __future__ import annotations

import pytest
from pydantic import JsonValue, ValidationError

from windlass_adapters.base import TerminalError
from windlass_adapters.local.offers import refuse_what_is_not_offered
from windlass_schemas import Deployment, Reason, dump_resource, parse_resource


def deployment(**spec: JsonValue) -> Deployment:
    """A Deployment of the model ``m`` with more in its spec."""
    document: JsonValue = {
        "apiVersion": "windlass/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {"model": "m", **spec},
    }
    parsed = parse_resource(document)
    assert isinstance(parsed, Deployment)
    return parsed


class TestFields:
    def test_everything_that_can_be_said_is_read(self) -> None:
        spec = deployment(
            autoscaling={
                "min": 0,
                "max": 11,
                "metric": "requestsPerSecond",
                "target": 25,
                "stabilisation": {"up": "2s", "down": "30s"},
            },
            rollout={"canary": {"weight": 20, "duration": "1m"}},
            access="keys",
            resources={"cpus": 2, "memory": "512Mi", "gpus": 1},
        ).spec
        assert spec.autoscaling is not None
        assert (spec.autoscaling.min, spec.autoscaling.max, spec.autoscaling.target) == (0, 11, 25)
        assert spec.rollout.canary is not None
        assert spec.rollout.canary.weight == 20

    def test_defaults_are_no_part_of_a_generation(self) -> None:
        assert dump_resource(deployment())["spec"] == {"model": "m"}

    @pytest.mark.parametrize(
        ("spec", "words"),
        [
            ({"replicas": 2, "autoscaling": {"max": 3, "target": 1}}, "replicas or autoscaling"),
            ({"autoscaling": {"min": 4, "max": 3, "target": 1}}, "min must not be above max"),
            ({"autoscaling": {"max": 3}}, "target"),
            ({"autoscaling": {"max": 3, "target": 0}}, "greater than 0"),
            ({"rollout": {"canary": {}, "shadow": {}}}, "canary or shadow, not both"),
            ({"rollout": {"canary": {"weight": 100}}}, "less than or equal to 99"),
            ({"replicas": 0}, "greater than or equal to 1"),
            ({"replicas": True}, "valid integer"),
            ({"access": "everybody"}, "'keys' or 'public'"),
            ({"resources": {"memory": "4 GB"}}, "pattern"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, spec: dict[str, JsonValue], words: str) -> None:
        with pytest.raises(ValidationError, match=words):
            deployment(**spec)


class TestRefusals:
    @pytest.mark.parametrize(
        ("spec", "field"),
        [
            ({"autoscaling": {"max": 3, "target": 20}}, "spec.autoscaling"),
            ({"rollout": {"canary": {}}}, "spec.rollout.canary"),
            ({"rollout": {"shadow": {}}}, "spec.rollout.shadow"),
            ({"access": "keys"}, "spec.access"),
            ({"resources": {"memory": "1Gi"}}, "spec.resources.memory"),
            ({"resources": {"gpus": 1}}, "spec.resources.gpus"),
        ],
    )
    def test_what_this_machine_does_not_do_is_an_invalid_spec(
        self, spec: dict[str, JsonValue], field: str
    ) -> None:
        with pytest.raises(TerminalError, match=f"^{field}: ") as caught:
            refuse_what_is_not_offered(deployment(**spec))
        assert caught.value.reason is Reason.INVALID_SPEC

    def test_what_it_does_is_taken(self) -> None:
        refuse_what_is_not_offered(deployment(replicas=2, access="public", resources={"cpus": 2}))
