"""A Model as SageMaker keeps it: the sagemaker adapter's share of ``normalise``; pure.

An artifact of the artifact store is uploaded; one that lies in S3 is only watched. On request a
version of it is entered into the model registry.
"""

from __future__ import annotations

from collections.abc import Iterator

from windlass_adapters.base import Desired, TerminalError, WaitingError, Wanted
from windlass_adapters.sagemaker.deployments import Renderer
from windlass_adapters.sagemaker.packing import check_name
from windlass_adapters.sagemaker.params import ModelOptions
from windlass_adapters.sagemaker.registry import wanted_package
from windlass_adapters.sagemaker.sources import check_url, wanted_source
from windlass_schemas import Artifact, Model, Reason, references_of


def wanted_model(renderer: Renderer, desired: Desired, model: Model) -> tuple[Wanted, ...]:
    """What must exist for a Model. Raises TerminalError, and WaitingError for a missing input."""
    for field, fault in model_faults(model):
        raise TerminalError(f"{field}: {fault}", reason=Reason.INVALID_SPEC)
    spec, options = model.spec, ModelOptions.model_validate(model.spec.options)
    if spec.source.s3 is not None:
        first = wanted_source(spec.source.s3, spec.format, spec.digest)
        url, identity = spec.source.s3, first.name
    else:
        artifact = _artifact(desired, model)
        if spec.digest is not None and artifact.digest != spec.digest:
            raise TerminalError(
                f"the artifact has {artifact.digest} and spec.digest says {spec.digest}",
                reason=Reason.DIGEST_MISMATCH,
            )
        identity = artifact.digest
        if artifact.url is not None:
            check_url(artifact.url, spec.format, "spec.source")
            first, url = wanted_source(artifact.url, spec.format, None), artifact.url
        else:
            artifact = artifact.model_copy(update={"format": spec.format})
            first = renderer.artifact(desired, artifact, spec.format)
            url = renderer.keys.url(first.name)
    if options.register_ is None:
        return (first,)
    return (first, *wanted_package(renderer, desired, options, (url, identity, spec.format)))


def _artifact(desired: Desired, model: Model) -> Artifact:
    source = model.spec.source
    if source.file is not None:
        found = desired.files.get(source.file)
        if found is None:
            raise TerminalError(
                f"spec.source.file: {source.file} is not a file beside the document",
                reason=Reason.INVALID_SPEC,
            )
        return found
    for reference in references_of(model):
        if reference.output is not None:
            if taken := desired.inputs.get(reference.slot):
                return taken
            raise WaitingError(
                f"{reference.field}: {reference.key.short} has no output {reference.output} yet",
                reason=Reason.DEPENDENCY_NOT_READY,
            )
    raise TerminalError("spec.source names no artifact", reason=Reason.INVALID_SPEC)


def model_faults(model: Model) -> Iterator[tuple[str, str]]:
    """What can be told to be wrong from the spec alone."""
    source, format_ = model.spec.source, model.spec.format
    if source.url is not None:
        yield "spec.source.url", "SageMaker takes artifacts from S3: use s3, file or job"
    if source.file is not None and (fault := check_name(source.file, format_)):
        yield "spec.source.file", fault
    if source.s3 is not None and not source.s3.endswith((".tar.gz", ".tgz")):
        yield "spec.source.s3", "SageMaker takes .tar.gz archives only; pack the model"
