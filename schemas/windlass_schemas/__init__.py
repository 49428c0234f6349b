"""The words of Windlass as values: keys, kinds, conditions, events. Pure data, no I/O."""

from windlass_schemas.base import Frozen, canonical_json, digest_of
from windlass_schemas.deployment import (
    MODEL_ARTIFACT,
    Autoscaling,
    Canary,
    Deployment,
    DeploymentSpec,
    Resources,
    Rollout,
    Shadow,
    Stabilisation,
)
from windlass_schemas.events import (
    CONDITION_EVENT,
    DELETED_EVENT,
    REFUSED_EVENT,
    UNREAD,
    CloudEvent,
    ConditionData,
)
from windlass_schemas.job import BEST_PARAMS, Job, JobInput, JobSpec
from windlass_schemas.key import DEFAULT_NAMESPACE, Key
from windlass_schemas.metadata import Metadata
from windlass_schemas.model import Model, ModelSource, ModelSpec
from windlass_schemas.policy import Deadlines, Dependency, Policy, Suspend
from windlass_schemas.reasons import Reason
from windlass_schemas.references import Reference
from windlass_schemas.resource import (
    API_VERSION,
    KINDS,
    Resource,
    digest_of_dumped,
    digest_of_resource,
    dump_resource,
    key_of,
    parse_canonical,
    parse_resource,
    references_of,
)
from windlass_schemas.scalars import MEMORY_PATTERN, format_duration, parse_duration, parse_memory
from windlass_schemas.status import (
    Artifact,
    Condition,
    ConditionType,
    ExternalStatus,
    Health,
    Signature,
    Status,
    Sync,
    Tensor,
    Truth,
)
from windlass_schemas.sweep import Objective, Range, Sweep, SweepSpec
from windlass_schemas.target import BUILT_IN_TARGET, Target, TargetSpec

__all__ = [
    "API_VERSION",
    "BEST_PARAMS",
    "BUILT_IN_TARGET",
    "CONDITION_EVENT",
    "DEFAULT_NAMESPACE",
    "DELETED_EVENT",
    "KINDS",
    "MEMORY_PATTERN",
    "MODEL_ARTIFACT",
    "REFUSED_EVENT",
    "UNREAD",
    "Artifact",
    "Autoscaling",
    "Canary",
    "CloudEvent",
    "Condition",
    "ConditionData",
    "ConditionType",
    "Deadlines",
    "Dependency",
    "Deployment",
    "DeploymentSpec",
    "ExternalStatus",
    "Frozen",
    "Health",
    "Job",
    "JobInput",
    "JobSpec",
    "Key",
    "Metadata",
    "Model",
    "ModelSource",
    "ModelSpec",
    "Objective",
    "Policy",
    "Range",
    "Reason",
    "Reference",
    "Resource",
    "Resources",
    "Rollout",
    "Shadow",
    "Signature",
    "Stabilisation",
    "Status",
    "Suspend",
    "Sweep",
    "SweepSpec",
    "Sync",
    "Target",
    "TargetSpec",
    "Tensor",
    "Truth",
    "canonical_json",
    "digest_of",
    "digest_of_dumped",
    "digest_of_resource",
    "dump_resource",
    "format_duration",
    "key_of",
    "parse_canonical",
    "parse_duration",
    "parse_memory",
    "parse_resource",
    "references_of",
]
