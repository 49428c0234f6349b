"""Updates of endpoints that were sent: hop 5's memory of what came of each.

What was tried is remembered in a tag on the new config, before it is sent, so that also a daemon
that has lost its memory neither calls it a success nor tries it for ever. A second tag remembers
that an endpoint was told to leave a config that could not be rolled back.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from windlass_adapters.base import Owner, TransientError
from windlass_adapters.sagemaker.answers import Answer, moment, part, text
from windlass_adapters.sagemaker.immutables import Backend
from windlass_adapters.sagemaker.inventory import CONFIG_TYPE, Known, Tagged
from windlass_adapters.sagemaker.names import BACK_TAG, OWNER_TAG, TRIED_TAG


def config_of(answer: Answer) -> str:
    """The config that is in force."""
    return text(answer, "EndpointConfigName")


def pending_config(answer: Answer) -> str:
    """The config that an update under way will bring."""
    return text(part(answer, "PendingDeploymentSummary"), "EndpointConfigName")


class Attempts:
    """The updates of one Target's endpoints."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._left_of: tuple[Tagged, set[str]] = ({}, set())
        self._asked: dict[str, str] = {}
        """By endpoint, when it had last changed when its configs were last asked for their tags."""
        self._told: dict[str, str] = {}
        """By endpoint, the config that was last told to have failed."""

    async def told(self, owner: Owner, answer: Answer) -> tuple[str, bool]:
        """The config whose update failed, and whether the endpoint was told to leave it.

        Whoever asks tells it on: until then `refuse_unheard` lets nobody try that config again.
        """
        failed, back = await self._came_to_nothing(owner, answer)
        self._told[text(answer, "EndpointName")] = failed
        return failed, back

    async def is_stuck_on(self, config: str, owner: Owner, answer: Answer) -> bool:
        """Whether a config has failed in both directions, and nobody has gone back from it yet."""
        return await self._failed(owner, answer) == config and not await self._went_back(
            config, answer
        )

    async def refuse_unheard(self, config: str, arn: str, owner: Owner, answer: Answer) -> None:
        """Another daemon may have sent this very update: then first say what came of it.

        Nothing shows its note at once but the config itself. Raises TransientError when it did.
        """
        tags = await self._backend.tags(arn)
        (await self._backend.inventory.configs.get())[config] = tags
        if BACK_TAG in tags:
            (await self._left()).add(config)
        failed, _ = await self._came_to_nothing(owner, answer)
        if failed == config != self._told.get(text(answer, "EndpointName")):
            raise TransientError(f"another daemon has tried {config} already; looking again")

    async def remember(self, config: str, arn: str, known: Known) -> None:
        """Note on a config that an update to it is about to be sent."""
        await self._note(config, arn, known, TRIED_TAG)

    async def remember_back(self, config: str, arn: str, known: Known) -> None:
        """Note on a config that the endpoint is about to be told to leave it."""
        await self._note(config, arn, known, BACK_TAG)
        (await self._left()).add(config)

    async def _note(self, config: str, arn: str, known: Known, tag: str) -> None:
        """The tag says how the endpoint stands now: it holds once that has changed."""
        stamp = _stamp(moment(known.answer, "LastModifiedTime"))
        await self._backend.add_tags(arn, {tag: stamp})
        configs = await self._backend.inventory.configs.get()
        configs.setdefault(config, dict(known.tags))[tag] = stamp

    async def _came_to_nothing(self, owner: Owner, answer: Answer) -> tuple[str, bool]:
        """The config whose update failed, and whether the endpoint was told to leave it."""
        failure = text(answer, "FailureReason")
        if not failure and not await self._left():
            return "", False
        failed = await self._failed(owner, answer)
        back = bool(failed) and await self._went_back(failed, answer)
        return failed if failure or back else "", back

    async def _failed(self, owner: Owner, answer: Answer) -> str:
        """The config of the last update that was sent, when it has ended and is not in force.

        The tag holds when the endpoint had last changed before the update was sent: an update that
        never arrived has left that time as it was.
        """
        if text(answer, "EndpointStatus") not in ("InService", "UpdateRollbackFailed"):
            return ""
        if pending_config(answer):
            return ""
        changed = _stamp(moment(answer, "LastModifiedTime"))
        name = text(answer, "EndpointName")
        if self._asked.get(name) != changed:
            await self._ask_configs(owner)
            self._asked[name] = changed
        configs = await self._backend.inventory.configs.get()
        tried = [
            (tags[TRIED_TAG], name)
            for name, tags in configs.items()
            if tags.get(TRIED_TAG, changed) != changed and self._backend.identity.owns(owner, tags)
        ]
        last = max(tried)[1] if tried else ""
        return "" if last == config_of(answer) else last

    async def _ask_configs(self, owner: Owner) -> None:
        """What other daemons remember on this owner's configs, as far as the index shows it."""
        token = self._backend.identity.token(owner)
        configs = await self._backend.inventory.configs.get()
        found = await self._backend.inventory.tagged(CONFIG_TYPE, OWNER_TAG, token)
        for name, tags in found.items():
            configs[name] = _newest(tags, configs.get(name, {}))

    async def _left(self) -> set[str]:
        """The configs that endpoints were told to leave: hardly ever any."""
        configs = await self._backend.inventory.configs.get()
        if self._left_of[0] is not configs:  # read anew
            self._left_of = configs, {n for n, tags in configs.items() if BACK_TAG in tags}
        return self._left_of[1]

    async def _went_back(self, failed: str, answer: Answer) -> bool:
        """Whether the endpoint was told to leave a config that could not be rolled back."""
        tags = (await self._backend.inventory.configs.get()).get(failed, {})
        return tags.get(BACK_TAG) not in (None, _stamp(moment(answer, "LastModifiedTime")))


def _newest(tags: dict[str, str], heard: Mapping[str, str]) -> dict[str, str]:
    """Tags out of the index, which may be older than what we have heard: stamps grow."""
    told = {k: max(heard[k], tags.get(k, "")) for k in (TRIED_TAG, BACK_TAG) if k in heard}
    return {**tags, **told}


def _stamp(at: datetime | None) -> str:
    return at.astimezone(UTC).isoformat() if at else "never"
