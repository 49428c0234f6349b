"""What an owner holds in the account: by its tag, and by what this process has just made for it."""

from __future__ import annotations

from windlass_adapters.base import External, Owner
from windlass_adapters.sagemaker.deployments import (
    ARTIFACT_ROLE,
    CONFIG_ROLE,
    ENDPOINT_ROLE,
    MODEL_ROLE,
)
from windlass_adapters.sagemaker.immutables import Backend
from windlass_adapters.sagemaker.jobs import RUN_ROLE
from windlass_adapters.sagemaker.names import OWNER_TAG
from windlass_adapters.sagemaker.processing import PROCESSING_ROLE
from windlass_adapters.sagemaker.transforms import TRANSFORM_ROLE
from windlass_adapters.sagemaker.tuning import TUNING_ROLE
from windlass_adapters.sagemaker.uploads import UPLOAD_ROLE

ROLES = {
    "model": MODEL_ROLE,
    "endpoint-config": CONFIG_ROLE,
    "endpoint": ENDPOINT_ROLE,
    "training-job": RUN_ROLE,
    "hyper-parameter-tuning-job": TUNING_ROLE,
    "processing-job": PROCESSING_ROLE,
    "transform-job": TRANSFORM_ROLE,
}
"""Role by the type in an ARN."""


class Belongings:
    """Who holds what, by tag and by memory."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._made: dict[str, set[External]] = {}

    def remember(self, owner: Owner, external: External) -> None:
        """It is about to be made for the owner; tags may show that only later."""
        self._made.setdefault(owner.uid, set()).add(external)

    async def of(self, owner: Owner) -> list[External]:
        """What may be the owner's; each must be looked at."""
        token = self._backend.identity.token(owner)
        found = set(self._made.get(owner.uid, ()))
        for type_, role in ROLES.items():
            held = await self._backend.inventory.tagged(f"sagemaker:{type_}", OWNER_TAG, token)
            found |= {External(role, name, name) for name in held}
        folder = self._backend.storage.keys.folder(owner)
        keys = self._backend.storage.keys
        async for key in self._backend.storage.names(folder):
            if keys.is_upload(key):
                found.add(External(UPLOAD_ROLE, key, key))
            elif keys.read(key) is not None:
                found.add(External(ARTIFACT_ROLE, key, key))
        return sorted(found)
