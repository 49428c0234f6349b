"""The sagemaker adapter: models, endpoints, autoscaling, training and tuning in one AWS account."""

from windlass_adapters.sagemaker.adapter import SageMakerAdapter

__all__ = ["SageMakerAdapter"]
