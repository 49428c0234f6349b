"""Requests that AWS takes, to be changed where a test needs it."""

from __future__ import annotations

from typing import Any

from rig.sagemaker.foreign import Foreign
from rig.sagemaker.shapes import Json

ROLE = "arn:aws:iam::123456789012:role/windlass-execution"
IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/serving:1"
SCALED = {
    "ServiceNamespace": "sagemaker",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
SCALING = "application-autoscaling"


def variant(name: str = "AllTraffic", **more: Any) -> Json:
    """A production variant."""
    return {
        "VariantName": name,
        "ModelName": "m",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
        **more,
    }


def training_request(name: str = "t", **more: Any) -> Json:
    """A training job."""
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
        "ResourceConfig": {
            "InstanceType": "ml.m5.large",
            "InstanceCount": 1,
            "VolumeSizeInGB": 10,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        **more,
    }


def tuning_request(name: str = "hpo", most: int = 2, parallel: int = 1) -> Json:
    """A tuning job over a learning rate and a batch size."""
    definition = training_request()
    del definition["TrainingJobName"]
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": most,
                "MaxParallelTrainingJobs": parallel,
            },
            "ParameterRanges": {
                "ContinuousParameterRanges": [
                    {"Name": "learning_rate", "MinValue": "0.001", "MaxValue": "0.1"}
                ],
                "CategoricalParameterRanges": [{"Name": "batch_size", "Values": ["32", "64"]}],
            },
        },
        "TrainingJobDefinition": definition,
    }


def transform_request(name: str = "batch", **more: Any) -> Json:
    """A transform job over model ``m``."""
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/in"}}
    return {
        "TransformJobName": name,
        "ModelName": "m",
        "TransformInput": {"DataSource": source},
        "TransformOutput": {"S3OutputPath": "s3://bucket/out"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **more,
    }


def processing_request(name: str = "p", **more: Any) -> Json:
    """A processing job with one input."""
    where = {"S3Uri": "s3://bucket/in", "LocalPath": "/opt/in", "S3DataType": "S3Prefix"}
    return {
        "ProcessingJobName": name,
        "AppSpecification": {"ImageUri": IMAGE},
        "RoleArn": ROLE,
        "ProcessingInputs": [{"InputName": "data", "S3Input": where}],
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 10,
            }
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        **more,
    }


def policy_request(**more: Any) -> Json:
    """A target-tracking policy for the only variant of endpoint ``e``."""
    tracked = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    return {
        **SCALED,
        "ResourceId": "endpoint/e/variant/AllTraffic",
        "PolicyName": "p",
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": 20.0,
            "PredefinedMetricSpecification": tracked,
            "ScaleInCooldown": 30,
            "ScaleOutCooldown": 30,
        },
        **more,
    }


def make_model(by: Foreign, name: str = "m", **more: Any) -> None:
    """A model."""
    request = {"ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": IMAGE}, **more}
    by.call("CreateModel", ModelName=name, **request)


def make_config(by: Foreign, config: str = "c", **more: Any) -> None:
    """An endpoint configuration with one variant of model ``m``."""
    by.call("CreateEndpointConfig", EndpointConfigName=config, ProductionVariants=[variant(**more)])


def make_endpoint(by: Foreign, name: str = "e", config: str = "c") -> None:
    """Model ``m``, a configuration, and an endpoint that is being created."""
    if by.front.account.get("model", "m") is None:
        make_model(by)
    if by.front.account.get("endpoint-config", config) is None:
        make_config(by, config)
    by.call("CreateEndpoint", EndpointName=name, EndpointConfigName=config)


def make_live(by: Foreign, name: str = "e", config: str = "c") -> None:
    """The same, waited for."""
    make_endpoint(by, name, config)
    by.front.account.timeline.advance(by.front.account.durations["endpoint.create"])
