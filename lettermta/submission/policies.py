"""Policies: a user's Python objects that look at each message before it is stored (``docs/policies.md``).

They are asked one after the other; each sees the message as those before it left it, and the first that refuses it has the last word.
Promises that none of them can do more than its verdict says, and that one which raises, answers nonsense or takes too long ends the
message as the operator chose: put off by a 451, or taken as if that policy were not there. Either way it is logged and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from lettermta import metrics
from lettermta.header import Field, split_fields
from lettermta.interfaces import IContent, ISubmissionPolicy
from lettermta.message import Envelope, Refused, Reply
from lettermta.plugged import FAULTS, TooSlow, answered, within
from lettermta.policy import Accept, Hold, PolicyMessage, PolicyVerdict, Refuse
from lettermta.submission.compose import Parsed, Terms
from lettermta.submission.control import MetadataBounds, tag_fault

NO_VERDICT = Reply(451, "4.3.0", "The message could not be judged, try again later")


@frozen
class Draft:
    """A message on its way through the policies: what it would be stored as now."""

    envelope: Envelope
    content: IContent
    parsed: Parsed
    terms: Terms


Finish = Callable[[Draft, str | None], Draft]
"""Puts a changed draft on the route of that slug (None: it stays) and checks it as any message; raises Refused when it breaks a rule."""


@frozen
class NamedPolicy:
    """A policy and the name that it has in the configuration."""

    name: str
    policy: ISubmissionPolicy


class Policies:
    """Asks ``policies`` in their order, each for ``time_limit`` seconds at the most; ``lenient``: one that fails is passed over."""

    _log = Logger()

    def __init__(
        self, policies: Sequence[NamedPolicy], clock: IReactorTime, *, time_limit: float, lenient: bool, metadata: MetadataBounds
    ) -> None:
        self._policies = tuple(policies)
        self._clock = clock
        self._time_limit = time_limit
        self._lenient = lenient
        self._metadata = metadata

    async def judge(self, draft: Draft, finish: Finish) -> Draft:
        """The draft as the policies leave it; raises Refused when one refuses it, or fails where that counts as much."""
        shown = _shown(draft)
        for named in self._policies:
            try:
                verdict = await self._verdict(named, shown)
                changed = draft if verdict is None else self._changed(draft, verdict, finish)
            except FAULTS as error:
                self._failed(named, draft, error)
                continue
            if isinstance(changed, Refuse):
                self._count(named, "refused")
                raise Refused(changed.reply, f"policy {named.name}, message {draft.terms.id}", "policy")
            self._count(named, _word(draft, changed))
            if changed is not draft:
                draft, shown = changed, _shown(changed)
        return draft

    async def _verdict(self, named: NamedPolicy, shown: PolicyMessage) -> PolicyVerdict | None:
        answer = answered(named.policy.look_at(shown))
        verdict: Any = await within(answer, self._time_limit, self._clock) if isinstance(answer, Deferred) else answer
        if verdict is not None and not isinstance(verdict, PolicyVerdict):
            raise TypeError(f"look_at gave {type(verdict).__name__}; expected None, Accept, Hold or Refuse, or a Deferred of one")
        return verdict

    def _changed(self, draft: Draft, verdict: PolicyVerdict, finish: Finish) -> Draft | Refuse:
        if isinstance(verdict, Refuse):
            return verdict
        if not verdict.changes:
            return draft
        changed = finish(evolve(draft, parsed=_with(draft.parsed, verdict, self._metadata)), verdict.route)
        return evolve(changed, terms=evolve(changed.terms, held=verdict.reason)) if isinstance(verdict, Hold) else changed

    def _failed(self, named: NamedPolicy, draft: Draft, error: BaseException) -> None:
        slow = isinstance(error, TooSlow)
        self._count(named, "timed_out" if slow else "failed")
        fate = "it goes on without that verdict" if self._lenient else "its client is to try again later"
        text = "{id}: policy {policy} came to no verdict ({error}), {fate}"
        if slow or isinstance(error, Refused):  # no trace would tell more
            self._log.error(text, id=draft.terms.id, policy=named.name, error=error, fate=fate)
        else:
            self._log.failure(text, id=draft.terms.id, policy=named.name, error=error, fate=fate)
        if not self._lenient:
            raise Refused(NO_VERDICT, f"policy {named.name}, message {draft.terms.id}", "policy_failure")

    def _count(self, named: NamedPolicy, verdict: str) -> None:
        metrics.POLICY_VERDICTS[named.name, verdict].inc()


def _word(before: Draft, after: Draft) -> str:
    """What became of a draft that was not refused, as the counters call it."""
    if after is before:
        return "accepted"
    return "changed" if after.terms.held == before.terms.held else "held"


def _shown(draft: Draft) -> PolicyMessage:
    envelope, control = draft.envelope, draft.parsed.control
    return PolicyMessage(
        id=draft.terms.id,
        project=draft.terms.project.slug,
        route=draft.terms.route.slug,
        peer=evolve(envelope.peer),
        sender=envelope.sender,
        recipients=tuple(envelope.recipients),
        tag=control.tag,
        metadata=dict(control.metadata),
        headers=tuple((field.name.rstrip(), field.text) for field in draft.parsed.kept),
        body_size=draft.content.body_size(),
        pieces=draft.content.body_pieces,
    )


def _with(parsed: Parsed, verdict: Accept, bounds: MetadataBounds) -> Parsed:
    """What was read of a message, with a policy's changes; raises ValueError when they break a rule that control headers must keep."""
    control = evolve(parsed.control)
    if verdict.tag is not None:
        control.tag = verdict.tag or None
        if control.tag is not None and (rule := tag_fault(control.tag)) is not None:
            raise ValueError(f"tag {control.tag!r}: {rule}")
    if verdict.metadata:
        control.metadata = {**control.metadata, **verdict.metadata}
        for key, value in verdict.metadata.items():
            if (rule := bounds.pair_fault(key, value)) is not None:
                raise ValueError(f"metadata {key!r}: {rule}")
        if (rule := bounds.fault(control.metadata)) is not None:
            raise ValueError(rule)
    removed = {name.lower() for name in verdict.remove}
    kept: list[Field] = [field for field in parsed.kept if field.key not in removed]
    kept += split_fields(b"".join(verdict.add))
    return Parsed(kept, kept, control)
