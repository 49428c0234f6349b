"""How things in the SageMaker double go on by themselves, on a clock that tests own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from rig.sagemaker.account import Plan
from rig.sagemaker.double import SageMakerDouble
from rig.sagemaker.refusals import Refusal
from rig.sagemaker.samples import (
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
)
from rig.sagemaker.shapes import Json
from rig.sagemaker.timeline import Timeline

TARGET = {**SCALED, "ResourceId": "endpoint/e/variant/AllTraffic"}


@pytest.fixture
def aws() -> SageMakerDouble:
    """An account; nothing here goes over the wire."""
    return SageMakerDouble()


def endpoint(aws: SageMakerDouble, name: str = "e") -> Json:
    """What DescribeEndpoint tells."""
    return aws.foreign.call("DescribeEndpoint", EndpointName=name)


def training(aws: SageMakerDouble, name: str = "t") -> Json:
    """What DescribeTrainingJob tells."""
    return aws.foreign.call("DescribeTrainingJob", TrainingJobName=name)


def test_an_endpoint_is_created_and_then_in_service(aws: SageMakerDouble) -> None:
    """Its variants are told only then."""
    make_endpoint(aws.foreign)
    assert endpoint(aws)["EndpointStatus"] == "Creating"
    assert "ProductionVariants" not in endpoint(aws)
    aws.clock.advance(minutes=3)
    told = endpoint(aws)
    assert told["EndpointStatus"] == "InService"
    assert told["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    assert told["LastModifiedTime"] == told["CreationTime"] + 120


def test_an_endpoint_that_fails_stays_failed_and_can_be_deleted(aws: SageMakerDouble) -> None:
    """DeleteEndpoint is all that is left."""
    aws.plan("create", fail="CapacityError: no instances")
    make_live(aws.foreign)
    assert endpoint(aws)["FailureReason"].startswith("CapacityError")
    aws.foreign.call("DeleteEndpoint", EndpointName="e")
    aws.clock.advance(minutes=1)
    with pytest.raises(Refusal, match="Could not find endpoint"):
        endpoint(aws)


def test_an_update_serves_the_old_configuration_until_it_is_done(aws: SageMakerDouble) -> None:
    """And tells of the new one as pending."""
    make_live(aws.foreign)
    make_config(aws.foreign, "c2")
    aws.foreign.call("UpdateEndpoint", EndpointName="e", EndpointConfigName="c2")
    told = endpoint(aws)
    assert (told["EndpointStatus"], told["EndpointConfigName"]) == ("Updating", "c")
    assert told["PendingDeploymentSummary"]["EndpointConfigName"] == "c2"
    aws.clock.advance(minutes=3)
    told = endpoint(aws)
    assert (told["EndpointStatus"], told["EndpointConfigName"]) == ("InService", "c2")
    assert "PendingDeploymentSummary" not in told


def test_a_failed_update_rolls_back_and_is_in_service_with_a_reason(aws: SageMakerDouble) -> None:
    """The trap: InService, and not what was asked for."""
    make_live(aws.foreign)
    make_config(aws.foreign, "c2")
    aws.plan("update", fail="The primary container did not pass the ping health check.")
    aws.foreign.call("UpdateEndpoint", EndpointName="e", EndpointConfigName="c2")
    aws.clock.advance(minutes=2)
    assert endpoint(aws)["EndpointStatus"] == "Updating"
    aws.clock.advance(minutes=1)
    told = endpoint(aws)
    assert (told["EndpointStatus"], told["EndpointConfigName"]) == ("InService", "c")
    assert "ping health check" in told["FailureReason"]


def test_an_alarm_rolls_an_update_back(aws: SageMakerDouble) -> None:
    """Auto-rollback by the alarms of the deployment."""
    make_live(aws.foreign)
    make_config(aws.foreign, "c2")
    rollback = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "latency"}]}}
    aws.foreign.call(
        "UpdateEndpoint", EndpointName="e", EndpointConfigName="c2", DeploymentConfig=rollback
    )
    aws.account.alarms = lambda: frozenset({"latency"})
    aws.clock.advance(minutes=4)
    assert endpoint(aws)["EndpointConfigName"] == "c"
    assert "latency" in endpoint(aws)["FailureReason"]


def test_a_rollback_may_fail(aws: SageMakerDouble) -> None:
    """UpdateRollbackFailed, for adapters that think they know all states."""
    make_live(aws.foreign)
    aws.plan("update", status="UpdateRollbackFailed", fail="both fleets are gone")
    aws.foreign.call("UpdateEndpoint", EndpointName="e", EndpointConfigName="c")
    aws.clock.advance(minutes=3)
    assert endpoint(aws)["EndpointStatus"] == "UpdateRollbackFailed"


def test_an_endpoint_whose_configuration_is_gone_cannot_be_updated(aws: SageMakerDouble) -> None:
    """The price of deleting a configuration in use."""
    make_live(aws.foreign)
    make_config(aws.foreign, "c2")
    aws.foreign.call("DeleteEndpointConfig", EndpointConfigName="c")
    with pytest.raises(Refusal, match="Could not find endpoint configuration"):
        aws.foreign.call("UpdateEndpoint", EndpointName="e", EndpointConfigName="c2")


@pytest.mark.parametrize(("retain", "count"), [(True, 7), (False, 1)])
def test_an_update_keeps_the_counts_only_when_asked_to(
    aws: SageMakerDouble, retain: bool, count: int
) -> None:
    """RetainAllVariantProperties; without it the configuration's count comes back."""
    make_live(aws.foreign)
    aws.foreign.scale("e", "AllTraffic", 7)
    make_config(aws.foreign, "c2")
    aws.foreign.call(
        "UpdateEndpoint",
        EndpointName="e",
        EndpointConfigName="c2",
        RetainAllVariantProperties=retain,
    )
    aws.clock.advance(minutes=3)
    assert endpoint(aws)["ProductionVariants"][0]["CurrentInstanceCount"] == count


def test_counts_and_weights_change_without_a_new_configuration(aws: SageMakerDouble) -> None:
    """And are under way for a while."""
    make_live(aws.foreign)
    change = {"VariantName": "AllTraffic", "DesiredInstanceCount": 3, "DesiredWeight": 0.5}
    aws.foreign.call(
        "UpdateEndpointWeightsAndCapacities", EndpointName="e", DesiredWeightsAndCapacities=[change]
    )
    now = endpoint(aws)["ProductionVariants"][0]
    assert (now["CurrentInstanceCount"], now["DesiredInstanceCount"]) == (1, 3)
    aws.clock.advance(minutes=1)
    now = endpoint(aws)["ProductionVariants"][0]
    assert (now["CurrentInstanceCount"], now["CurrentWeight"]) == (3, 0.5)


def test_aws_patches_an_endpoint_and_nobody_may_touch_it(aws: SageMakerDouble) -> None:
    """SystemUpdating."""
    make_live(aws.foreign)
    aws.foreign.patch("e", 60)
    with pytest.raises(Refusal, match="in-progress"):
        aws.foreign.call("UpdateEndpoint", EndpointName="e", EndpointConfigName="c")
    aws.clock.advance(minutes=1)
    assert endpoint(aws)["EndpointStatus"] == "InService"


def test_deleting_an_endpoint_takes_its_scaling_along_and_leaves_the_rest(
    aws: SageMakerDouble,
) -> None:
    """Configuration and model are orphans then."""
    make_live(aws.foreign)
    aws.foreign.call("RegisterScalableTarget", SCALING, **TARGET, MinCapacity=1, MaxCapacity=3)
    aws.foreign.call("PutScalingPolicy", SCALING, **policy_request())
    aws.foreign.call("DeleteEndpoint", EndpointName="e")
    aws.clock.advance(minutes=1)
    assert [arn.split(":")[-1] for arn in aws.monitor.held()] == ["endpoint-config/c", "model/m"]


def test_deregistering_deletes_the_policies_too(aws: SageMakerDouble) -> None:
    """Application Auto Scaling says so."""
    make_live(aws.foreign)
    aws.foreign.call("RegisterScalableTarget", SCALING, **TARGET, MinCapacity=1, MaxCapacity=3)
    aws.foreign.call("PutScalingPolicy", SCALING, **policy_request())
    aws.foreign.call("DeregisterScalableTarget", SCALING, **TARGET)
    told = aws.foreign.call("DescribeScalingPolicies", SCALING, ServiceNamespace="sagemaker")
    assert told["ScalingPolicies"] == []


def test_registering_again_changes_what_is_given_and_keeps_the_rest(aws: SageMakerDouble) -> None:
    """One call for both."""
    make_live(aws.foreign)
    aws.foreign.call("RegisterScalableTarget", SCALING, **TARGET, MinCapacity=1, MaxCapacity=3)
    aws.foreign.call("RegisterScalableTarget", SCALING, **TARGET, MaxCapacity=2)
    (told,) = aws.foreign.call("DescribeScalableTargets", SCALING, ServiceNamespace="sagemaker")[
        "ScalableTargets"
    ]
    assert (told["MinCapacity"], told["MaxCapacity"]) == (1, 2)


def test_a_training_job_goes_through_its_states(aws: SageMakerDouble) -> None:
    """And says when."""
    aws.foreign.call("CreateTrainingJob", **training_request())
    seen = []
    for _ in range(19):
        seen.append(training(aws)["SecondaryStatus"])
        aws.clock.advance(5)
    states = list(dict.fromkeys(seen))
    assert states == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    told = training(aws)
    assert told["ModelArtifacts"]["S3ModelArtifacts"] == "s3://bucket/out/t/output/model.tar.gz"
    assert told["TrainingJobStatus"] == "Completed"
    assert told["TrainingEndTime"] - told["TrainingStartTime"] == 70


def test_a_training_job_that_fails_says_why(aws: SageMakerDouble) -> None:
    """AlgorithmError, with the script's own words."""
    aws.plan("training", fail="AlgorithmError: ExecuteUserScriptError")
    aws.foreign.call("CreateTrainingJob", **training_request())
    aws.clock.advance(minutes=5)
    assert training(aws)["TrainingJobStatus"] == "Failed"
    assert training(aws)["FailureReason"].startswith("AlgorithmError")


def test_a_training_job_is_cut_at_its_longest_runtime(aws: SageMakerDouble) -> None:
    """Stopped, which is no success."""
    limits = {"MaxRuntimeInSeconds": 30}
    aws.foreign.call("CreateTrainingJob", **training_request(StoppingCondition=limits))
    aws.clock.advance(minutes=5)
    told = training(aws)
    assert (told["TrainingJobStatus"], told["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_a_spot_job_is_interrupted_and_restarted(aws: SageMakerDouble) -> None:
    """By a plan of steps."""
    steps = (("Training", 10.0), ("Interrupted", 30.0), ("Restarting", 5.0), ("Training", 10.0))
    aws.account.plans.append(Plan("training", steps=steps))
    aws.foreign.call("CreateTrainingJob", **training_request())
    aws.clock.advance(15)
    assert training(aws)["SecondaryStatus"] == "Interrupted"
    aws.clock.advance(minutes=1)
    assert training(aws)["TrainingJobStatus"] == "Completed"


def test_a_spot_job_waits_no_longer_than_it_may(aws: SageMakerDouble) -> None:
    """MaxWaitTimeExceeded."""
    aws.account.plans.append(Plan("training", steps=(("Interrupted", 1e6),)))
    limits = {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120}
    spot = training_request(StoppingCondition=limits, EnableManagedSpotTraining=True)
    aws.foreign.call("CreateTrainingJob", **spot)
    aws.clock.advance(minutes=3)
    assert training(aws)["SecondaryStatus"] == "MaxWaitTimeExceeded"


def test_stopping_takes_a_while_and_ends_stopped(aws: SageMakerDouble) -> None:
    """Stopping, then Stopped; asking twice is no error."""
    aws.foreign.call("CreateTrainingJob", **training_request())
    for _ in range(2):
        aws.foreign.call("StopTrainingJob", TrainingJobName="t")
    assert training(aws)["TrainingJobStatus"] == "Stopping"
    aws.clock.advance(minutes=1)
    assert training(aws)["TrainingJobStatus"] == "Stopped"


def test_a_processing_or_transform_job_ends(aws: SageMakerDouble) -> None:
    """Completed, or stopped by a user."""
    make_model(aws.foreign)
    aws.foreign.call("CreateTransformJob", **transform_request("one"))
    aws.foreign.call("CreateTransformJob", **transform_request("two"))
    aws.foreign.call("StopTransformJob", TransformJobName="two")
    aws.clock.advance(minutes=2)
    told = aws.foreign.call("ListTransformJobs", SortBy="Name", SortOrder="Ascending")
    ended = [job["TransformJobStatus"] for job in told["TransformJobSummaries"]]
    assert ended == ["Completed", "Stopped"]


def test_a_processing_job_runs_when_its_machines_are_there(aws: SageMakerDouble) -> None:
    """A limit counts from then; what the container says at its end is told, and what it left."""
    left: dict[str, bytes] = {}
    aws.account.on_output = left.__setitem__
    output = {"S3Uri": "s3://b/out", "LocalPath": "/out", "S3UploadMode": "EndOfJob"}
    config = {"Outputs": [{"OutputName": "output", "S3Output": output}]}
    aws.plan("processing", "p", said="done", files={"a/b.csv": b"1"})
    aws.foreign.call("CreateProcessingJob", **processing_request(ProcessingOutputConfig=config))
    limit = {"MaxRuntimeInSeconds": 30}
    aws.foreign.call("CreateProcessingJob", **processing_request("q", StoppingCondition=limit))
    told = aws.foreign.call("DescribeProcessingJob", ProcessingJobName="p")
    assert "ProcessingStartTime" not in told
    aws.clock.advance(minutes=2)
    told = aws.foreign.call("DescribeProcessingJob", ProcessingJobName="p")
    assert (told["ProcessingJobStatus"], told["ExitMessage"]) == ("Completed", "done")
    assert left == {"s3://b/out/a/b.csv": b"1"}
    cut = aws.foreign.call("DescribeProcessingJob", ProcessingJobName="q")
    assert cut["ProcessingJobStatus"] == "Stopped"
    assert cut["ProcessingEndTime"] - cut["ProcessingStartTime"] == 30


@pytest.mark.parametrize("kind", ["processing-job", "transform-job"])
def test_a_batch_job_beyond_the_quota_is_refused(aws: SageMakerDouble, kind: str) -> None:
    """Each kind has quotas of its own."""
    aws.account.batch_quota[kind, "ml.m5.large"] = 1
    make_model(aws.foreign)
    aws.foreign.call("CreateTransformJob", **transform_request("one"))
    aws.foreign.call("CreateProcessingJob", **processing_request("one"))
    again = {
        "processing-job": ("CreateProcessingJob", processing_request("two")),
        "transform-job": ("CreateTransformJob", transform_request("two")),
    }
    name, request = again[kind]
    with pytest.raises(Refusal, match=f"{kind.replace('-', ' ')} usage"):
        aws.foreign.call(name, **request)


def test_what_a_batch_job_is_asked_and_is_not_modelled_is_said(aws: SageMakerDouble) -> None:
    """501, and no guess."""
    make_model(aws.foreign)
    capture = {"DestinationS3Uri": "s3://b/c"}
    with pytest.raises(Refusal, match="DataCaptureConfig"):
        aws.foreign.call("CreateTransformJob", **transform_request(DataCaptureConfig=capture))


def test_tuning_runs_its_children_some_at_a_time_and_keeps_the_best(aws: SageMakerDouble) -> None:
    """Two jobs, one at a time, the lowest loss."""
    aws.account.objective = lambda given: float(given["learning_rate"])
    aws.foreign.call("CreateHyperParameterTuningJob", **tuning_request(most=2, parallel=1))
    at_once = []
    for _ in range(30):
        aws.clock.advance(10)
        running = aws.foreign.call("ListTrainingJobs", StatusEquals="InProgress")
        at_once.append(len(running["TrainingJobSummaries"]))
    assert max(at_once) == 1
    told = aws.foreign.call("DescribeHyperParameterTuningJob", HyperParameterTuningJobName="hpo")
    children = aws.foreign.call(
        "ListTrainingJobsForHyperParameterTuningJob", HyperParameterTuningJobName="hpo"
    )["TrainingJobSummaries"]
    assert told["HyperParameterTuningJobStatus"] == "Completed"
    assert told["TrainingJobStatusCounters"]["Completed"] == len(children) == 2
    rates = [float(child["TunedHyperParameters"]["learning_rate"]) for child in children]
    best = told["BestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
    assert best == pytest.approx(min(rates))


def test_stopping_a_tuning_job_stops_its_children(aws: SageMakerDouble) -> None:
    """And it is Stopped when they are."""
    aws.foreign.call("CreateHyperParameterTuningJob", **tuning_request(most=9, parallel=3))
    aws.foreign.call("StopHyperParameterTuningJob", HyperParameterTuningJobName="hpo")
    aws.clock.advance(minutes=1)
    told = aws.foreign.call("DescribeHyperParameterTuningJob", HyperParameterTuningJobName="hpo")
    assert told["HyperParameterTuningJobStatus"] == "Stopped"
    assert told["TrainingJobStatusCounters"]["Stopped"] == 3


def test_a_model_package_is_made_once_for_a_token(aws: SageMakerDouble) -> None:
    """ClientToken; it completes after a while and waits for approval."""
    aws.foreign.call("CreateModelPackageGroup", ModelPackageGroupName="g")
    request = {"ModelPackageGroupName": "g", "ClientToken": "t" * 36}
    arns = {aws.foreign.call("CreateModelPackage", **request)["ModelPackageArn"] for _ in "ab"}
    (arn,) = arns
    assert arn.endswith("model-package/g/1")
    aws.clock.advance(minutes=1)
    told = aws.foreign.call("DescribeModelPackage", ModelPackageName=arn)
    assert (told["ModelPackageStatus"], told["ModelApprovalStatus"]) == (
        "Completed",
        "PendingManualApproval",
    )


def test_what_was_just_made_may_not_be_seen_for_a_while(aws: SageMakerDouble) -> None:
    """Read-your-write lag, and a second create still says that it exists."""
    aws.account.unseen["endpoint-config"] = 5
    make_model(aws.foreign)
    make_config(aws.foreign)
    with pytest.raises(Refusal, match="Could not find"):
        aws.foreign.call("CreateEndpoint", EndpointName="e", EndpointConfigName="c")
    with pytest.raises(Refusal, match="already existing"):
        make_config(aws.foreign)
    aws.clock.advance(5)
    aws.foreign.call("CreateEndpoint", EndpointName="e", EndpointConfigName="c")


def test_search_may_tell_how_things_once_stood(aws: SageMakerDouble) -> None:
    """A hint, and no more."""
    aws.account.search_lag = 3600
    aws.foreign.call("ListModels")
    make_live(aws.foreign)
    assert aws.foreign.call("Search", Resource="Endpoint")["Results"] == []
    aws.clock.advance(hours=1)
    (told,) = aws.foreign.call("Search", Resource="Endpoint")["Results"]
    assert told["Endpoint"]["EndpointStatus"] == "InService"


def test_pages_may_be_short_and_the_first_one_empty(aws: SageMakerDouble) -> None:
    """A list is over when there is no token, and not before."""
    for number in range(5):
        make_model(aws.foreign, f"m{number}")
    aws.account.page_limit, aws.account.empty_first_page = 2, True
    sizes: list[int] = []
    more: dict[str, str] = {}
    while True:
        told = aws.foreign.call("ListModels", MaxResults=100, **more)
        sizes.append(len(told["Models"]))
        if "NextToken" not in told:
            break
        more = {"NextToken": told["NextToken"]}
    assert sizes == [0, 2, 2, 1]


def test_a_list_without_a_size_gives_ten(aws: SageMakerDouble) -> None:
    """The default of all SageMaker lists."""
    for number in range(11):
        make_model(aws.foreign, f"m{number}")
    assert len(aws.foreign.call("ListModels")["Models"]) == 10


def test_lists_go_by_time_status_and_name(aws: SageMakerDouble) -> None:
    """The filters by which one polls."""
    make_live(aws.foreign, "old")
    mark = aws.clock.seconds
    aws.clock.advance(1)
    make_endpoint(aws.foreign, "new")

    def names(**asked: object) -> list[str]:
        told = aws.foreign.call("ListEndpoints", **asked)["Endpoints"]
        return [one["EndpointName"] for one in told]

    assert names() == ["new", "old"]
    assert names(LastModifiedTimeAfter=mark) == ["new"]
    assert names(StatusEquals="InService") == ["old"]
    assert names(NameContains="OL") == ["old"]
    assert names(SortBy="Name", SortOrder="Ascending") == ["new", "old"]


def test_the_timeline_follows_a_clock_that_somebody_else_drives() -> None:
    """So that a kernel's time and AWS's are one."""
    now = [datetime(2030, 1, 1, tzinfo=UTC)]
    timeline = Timeline(lambda: now[0])
    seen: list[float] = []
    timeline.at(10, lambda: seen.append(timeline.seconds))
    now[0] += timedelta(seconds=30)
    timeline.catch_up()
    assert seen == [now[0].timestamp() - 20]
    assert timeline() == now[0]
    with pytest.raises(RuntimeError, match="follows another clock"):
        timeline.advance(1)


def test_what_falls_due_happens_in_order_and_at_its_own_moment() -> None:
    """Also what is set off on the way."""
    timeline = Timeline()
    start, seen = timeline.seconds, []

    def first() -> None:
        seen.append(timeline.seconds - start)
        timeline.at(1, lambda: seen.append(timeline.seconds - start))

    timeline.at(5, lambda: seen.append(timeline.seconds - start))
    timeline.at(2, first)
    timeline.at(3, lambda: seen.append(-1)).off = True
    timeline.advance(10)
    assert seen == [2, 3, 5]
