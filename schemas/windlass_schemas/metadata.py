"""``metadata``: which object a document speaks of."""

from __future__ import annotations

from windlass_schemas.base import Frozen
from windlass_schemas.key import DEFAULT_NAMESPACE
from windlass_schemas.scalars import Name


class Metadata(Frozen):
    """Name, namespace and free labels. Labels are for people and never cause a change."""

    name: Name
    namespace: Name = DEFAULT_NAMESPACE
    labels: dict[str, str] = {}
