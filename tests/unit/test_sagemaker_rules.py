"""Each rule of the SageMaker double refuses what it says, and nobody can lean on a guess."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rig.sagemaker.double import SageMakerDouble
from rig.sagemaker.foreign import Foreign
from rig.sagemaker.operations import OPERATIONS, Ask
from rig.sagemaker.others import BAD_DIGEST
from rig.sagemaker.refusals import RULES, Known, Refusal
from rig.sagemaker.runtime import Invoked
from rig.sagemaker.samples import (
    ROLE,
    SCALED,
    SCALING,
    make_config,
    make_endpoint,
    make_live,
    make_model,
    policy_request,
    processing_request,
    training_request,
    transform_request,
    tuning_request,
    variant,
)

Case = Callable[[SageMakerDouble, Foreign], object]
CASES: dict[str, Case] = {}
BY_HTTP = {BAD_DIGEST.name}
"""Rules that need a request over the wire; they are in test_sagemaker_double."""
TARGET = {**SCALED, "ResourceId": "endpoint/e/variant/AllTraffic"}


def case(name: str) -> Callable[[Case], Case]:
    """Enter what breaks a rule."""

    def enter(breaks: Case) -> Case:
        CASES[name] = breaks
        return breaks

    return enter


@case("model.exists")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_model(by)
    make_model(by)


@case("model.absent")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("DescribeModel", ModelName="m")


@case("model.empty")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("CreateModel", ModelName="m", ExecutionRoleArn=ROLE)


@case("config.exists")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_model(by)
    make_config(by)
    make_config(by)


@case("config.absent")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("CreateEndpoint", EndpointName="e", EndpointConfigName="c")


@case("endpoint.exists")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_endpoint(by, "Wine")
    make_endpoint(by, "wine")  # one name, whatever the case


@case("endpoint.absent")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("DeleteEndpoint", EndpointName="e")


@case("endpoint.busy")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_endpoint(by)
    by.call("DeleteEndpoint", EndpointName="e")


@case("endpoint.failed")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    aws.plan("create", fail="no ping")
    make_live(by)
    by.call("UpdateEndpoint", EndpointName="e", EndpointConfigName="c")


@case("endpoint.variant")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_live(by)
    change = {"VariantName": "other", "DesiredInstanceCount": 2}
    by.call(
        "UpdateEndpointWeightsAndCapacities", EndpointName="e", DesiredWeightsAndCapacities=[change]
    )


@case("endpoint.autoscaled")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_live(by)
    by.call("RegisterScalableTarget", SCALING, **TARGET, MinCapacity=1, MaxCapacity=3)
    make_config(by, "larger", InstanceType="ml.m5.xlarge")
    by.call("UpdateEndpoint", EndpointName="e", EndpointConfigName="larger")


@case("quota.endpoint")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    aws.account.quota["ml.m5.large"] = 0
    make_endpoint(by)


@case("endpoint.guardrail-variants")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_live(by)
    make_config(by, "other", name="Other")
    _update(by, "other", wait=60, longest=600)


@case("endpoint.execution-timeout")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_live(by)
    _update(by, "c", wait=600, longest=600)


def _deploy(by: Foreign, deployment: dict[str, Any]) -> None:
    make_live(by)
    by.call("UpdateEndpoint", EndpointName="e", EndpointConfigName="c", DeploymentConfig=deployment)


def _rolling(percent: int) -> dict[str, Any]:
    size = {"Type": "CAPACITY_PERCENT", "Value": percent}
    return {"RollingUpdatePolicy": {"MaximumBatchSize": size, "WaitIntervalInSeconds": 60}}


@case("update.size")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    _deploy(by, _rolling(90))


@case("update.one-policy")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    routing = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
    blue_green = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}
    _deploy(by, {**_rolling(50), **blue_green})


@case("update.rolling")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_live(by)
    two = [variant(), variant(name="Other")]
    by.call("CreateEndpointConfig", EndpointConfigName="two", ProductionVariants=two)
    by.call(
        "UpdateEndpoint",
        EndpointName="e",
        EndpointConfigName="two",
        DeploymentConfig=_rolling(50),
    )


def _update(by: Foreign, config: str, *, wait: int, longest: int) -> None:
    size = {"Type": "CAPACITY_PERCENT", "Value": 50}
    routing = {"Type": "CANARY", "CanarySize": size, "WaitIntervalInSeconds": wait}
    policy = {
        "TrafficRoutingConfiguration": routing,
        "MaximumExecutionTimeoutInSeconds": longest,
    }
    by.call(
        "UpdateEndpoint",
        EndpointName="e",
        EndpointConfigName=config,
        DeploymentConfig={"BlueGreenUpdatePolicy": policy},
    )


@case("training.exists")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("CreateTrainingJob", **training_request())
    by.call("CreateTrainingJob", **training_request())


@case("training.absent")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("DescribeTrainingJob", TrainingJobName="t")


@case("training.stop")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("CreateTrainingJob", **training_request())
    aws.clock.advance(hours=1)
    by.call("StopTrainingJob", TrainingJobName="t")


@case("lambda.provisioned-absent")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    operation = OPERATIONS["lambda", "GetProvisionedConcurrencyConfig"]
    operation(Ask(aws.account, {"FunctionName": "f"}, "nobody"))


@case("config.serverless")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_model(by, EnableNetworkIsolation=True)
    capacity = {"MemorySizeInMB": 2048, "MaxConcurrency": 5}
    serverless = {"VariantName": "v", "ModelName": "m", "ServerlessConfig": capacity}
    by.call("CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[serverless])


@case("endpoint.to-serverless")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_live(by)
    capacity = {"MemorySizeInMB": 2048, "MaxConcurrency": 5}
    serverless = {"VariantName": "v", "ModelName": "m", "ServerlessConfig": capacity}
    by.call("CreateEndpointConfig", EndpointConfigName="s", ProductionVariants=[serverless])
    by.call("UpdateEndpoint", EndpointName="e", EndpointConfigName="s")


@case("transform.payload")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_model(by)
    by.call("CreateTransformJob", **transform_request(MaxPayloadInMB=51, MaxConcurrentTransforms=2))


@case("transform.strategy")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_model(by)
    by.call("CreateTransformJob", **transform_request(BatchStrategy="MultiRecord"))


@case("processing.input-names")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    inputs = processing_request()["ProcessingInputs"] * 2
    by.call("CreateProcessingJob", **processing_request(ProcessingInputs=inputs))


@case("job.delete-absent")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("DeleteTrainingJob", TrainingJobName="t")


@case("job.delete-running")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("CreateTrainingJob", **training_request())
    by.call("DeleteTrainingJob", TrainingJobName="t")


@case("training.wait-without-spot")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    limits = {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60}
    by.call("CreateTrainingJob", **training_request(StoppingCondition=limits))


@case("training.wait-too-short")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    limits = {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 59}
    spot = training_request(StoppingCondition=limits, EnableManagedSpotTraining=True)
    by.call("CreateTrainingJob", **spot)


@case("batch.exists")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_model(by)
    by.call("CreateTransformJob", **transform_request())
    by.call("CreateTransformJob", **transform_request())


@case("batch.absent")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("DescribeProcessingJob", ProcessingJobName="p")


@case("batch.stop")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_model(by)
    by.call("CreateTransformJob", **transform_request())
    aws.clock.advance(hours=1)
    by.call("StopTransformJob", TransformJobName="batch")


@case("job.delete-absent")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("DeleteTrainingJob", TrainingJobName="t")


@case("job.delete-running")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("CreateTrainingJob", **training_request())
    by.call("DeleteTrainingJob", TrainingJobName="t")


@case("tuning.exists")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("CreateHyperParameterTuningJob", **tuning_request())
    by.call("CreateHyperParameterTuningJob", **tuning_request())


@case("tuning.absent")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("DescribeHyperParameterTuningJob", HyperParameterTuningJobName="hpo")


@case("tuning.stop")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("CreateHyperParameterTuningJob", **tuning_request())
    aws.clock.advance(hours=1)
    by.call("StopHyperParameterTuningJob", HyperParameterTuningJobName="hpo")


@case("group.exists")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("CreateModelPackageGroup", ModelPackageGroupName="g")
    by.call("CreateModelPackageGroup", ModelPackageGroupName="g")


@case("group.absent")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("CreateModelPackage", ModelPackageGroupName="g")


@case("group.full")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    _make_version(by)
    by.call("DeleteModelPackageGroup", ModelPackageGroupName="g")


@case("package.absent")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("DescribeModelPackage", ModelPackageName=aws.account.arn("model-package", "g/1"))


@case("package.version-tags")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("CreateModelPackageGroup", ModelPackageGroupName="g")
    tags = [{"Key": "a", "Value": "b"}]
    by.call("CreateModelPackage", ModelPackageGroupName="g", Tags=tags)


@case("tags.package-version")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    arn = _make_version(by)
    by.call("AddTags", ResourceArn=arn, Tags=[{"Key": "a", "Value": "b"}])


def _make_version(by: Foreign) -> str:
    by.call("CreateModelPackageGroup", ModelPackageGroupName="g")
    arn: str = by.call("CreateModelPackage", ModelPackageGroupName="g")["ModelPackageArn"]
    return arn


@case("tags.absent")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("ListTags", ResourceArn=aws.account.arn("model", "m"))


@case("tags.limit")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_model(by, Tags=[{"Key": f"k{n}", "Value": ""} for n in range(30)])
    more = [{"Key": f"more{n}", "Value": ""} for n in range(21)]
    by.call("AddTags", ResourceArn=aws.account.arn("model", "m"), Tags=more)


@case("tags.aws")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_model(by, Tags=[{"Key": "aws:mine", "Value": ""}])


@case("list.token")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("ListModels", NextToken="none of yours")


@case("scaling.endpoint")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_endpoint(by)  # not yet in service
    by.call("RegisterScalableTarget", SCALING, **TARGET, MinCapacity=1, MaxCapacity=3)


@case("scaling.capacity")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_live(by)
    by.call("RegisterScalableTarget", SCALING, **TARGET, MinCapacity=4, MaxCapacity=3)


@case("scaling.capacity-needed")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_live(by)
    by.call("RegisterScalableTarget", SCALING, **TARGET, MinCapacity=4)


@case("scaling.tags")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_live(by)
    request = {**TARGET, "MinCapacity": 1, "MaxCapacity": 3, "Tags": {"a": "b"}}
    by.call("RegisterScalableTarget", SCALING, **request)
    by.call("RegisterScalableTarget", SCALING, **request)


@case("scaling.absent")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_live(by)
    by.call("PutScalingPolicy", SCALING, **policy_request())


@case("scaling.policy-absent")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    by.call("DeleteScalingPolicy", SCALING, **TARGET, PolicyName="p")


@case("scaling.tags-absent")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    arn = aws.account.arn("scalable-target", "x", SCALING)
    by.call("TagResource", SCALING, ResourceARN=arn, Tags={"a": "b"})


@case("invoke.absent")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_endpoint(by)  # not yet in service
    aws.front.runtime.invoke(Invoked("e", b"{}", "", "", {}))


@case("invoke.variant")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_live(by)
    headers = {"x-amzn-sagemaker-target-variant": "other"}
    aws.front.runtime.invoke(Invoked("e", b"{}", "", "", headers))


@case("invoke.size")
def _(aws: SageMakerDouble, by: Foreign) -> None:
    make_live(by)
    aws.front.runtime.invoke(Invoked("e", bytes(6 * 1024 * 1024 + 1), "", "", {}))


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_broken_rule_is_refused_by_its_name_and_code(name: str) -> None:
    """What AWS refuses, the double refuses, for that reason and no other."""
    aws = SageMakerDouble()
    with pytest.raises(Refusal) as error:
        CASES[name](aws, aws.foreign)
    assert (error.value.rule, error.value.code) == (name, RULES[name].code)


def test_every_rule_is_broken_by_a_case() -> None:
    """A rule that nothing produces is a rule that nobody has thought through."""
    assert sorted(RULES) == sorted({*CASES, *BY_HTTP})


def test_the_words_of_a_guess_are_never_given_out() -> None:
    """Else code would come to match on what AWS may never have said."""
    guesses = [rule for rule in RULES.values() if rule.known is Known.GUESS]
    assert guesses, "the ledger has no guesses: then this test can go"
    for rule in guesses:
        aws = SageMakerDouble()
        with pytest.raises(Refusal) as error:
            CASES[rule.name](aws, aws.foreign)
        said = error.value.message.partition("] ")[2]
        words = [word for word in rule.text.split() if word.isalpha() and len(word) > 3]
        assert words, f"{rule.name} has no words to hide"
        assert not any(word in said for word in words), f"{rule.name} says {said}"


def test_rules_known_from_issues_name_their_evidence() -> None:
    """``issue`` without a source is a guess."""
    bare = [r.name for r in RULES.values() if r.known is Known.ISSUE and not r.evidence]
    assert not bare


def test_what_is_not_modelled_is_refused_and_not_guessed() -> None:
    """Known to AWS, unknown to the double: 501."""
    aws = SageMakerDouble()
    with pytest.raises(Refusal, match="does not model CreateCluster") as error:
        aws.foreign.call(
            "CreateCluster",
            ClusterName="c",
            InstanceGroups=[
                {
                    "InstanceCount": 1,
                    "InstanceGroupName": "g",
                    "InstanceType": "ml.m5.large",
                    "LifeCycleConfig": {"SourceS3Uri": "s3://sagemaker-b/x", "OnCreate": "a.sh"},
                    "ExecutionRole": ROLE,
                }
            ],
        )
    assert error.value.status == 501


def test_a_list_by_an_unmodelled_filter_is_refused() -> None:
    """To leave a filter out would be a wrong answer."""
    aws = SageMakerDouble()
    with pytest.raises(Refusal, match="WarmPoolStatusEquals"):
        aws.foreign.call("ListTrainingJobs", WarmPoolStatusEquals="Available")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"ModelName": "bad_name!"}, "regular expression pattern"),
        ({"ModelName": "x" * 64}, "length less than or equal to 63"),
        ({"ModelName": "m", "ExecutionRoleArn": "nope"}, "greater than or equal to 20"),
        ({}, "'modelName' failed to satisfy constraint: Member must not be null"),
        ({"ModelName": "m", "Colour": "red"}, "Unknown member 'Colour'"),
        ({"ModelName": "m", "EnableNetworkIsolation": "yes"}, "not a boolean"),
    ],
)
def test_requests_are_held_against_the_service_model(
    request_: dict[str, object], words: str
) -> None:
    """Names, lengths, patterns and members, in AWS's words."""
    aws = SageMakerDouble()
    with pytest.raises(Refusal, match=r"\d validation errors? detected") as error:
        aws.foreign.call("CreateModel", **request_)
    assert words in error.value.message


def test_an_instance_type_that_does_not_exist_is_refused() -> None:
    """Enums are the service's to check; botocore's client lets them pass."""
    aws = SageMakerDouble()
    make_model(aws.foreign)
    with pytest.raises(Refusal, match=r"productionVariants\.1\.member\.instanceType"):
        aws.foreign.call(
            "CreateEndpointConfig",
            EndpointConfigName="c",
            ProductionVariants=[variant(InstanceType="ml.bogus.large")],
        )


def test_tags_follow_unicode_categories() -> None:
    """Letters of any script are fine; control characters are not."""
    aws = SageMakerDouble()
    make_model(aws.foreign, Tags=[{"Key": "größe:Ж", "Value": "a b/c=1+@-"}])
    with pytest.raises(Refusal, match="regular expression"):
        make_model(aws.foreign, "m2", Tags=[{"Key": "a\tb", "Value": ""}])
