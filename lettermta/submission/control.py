"""The headers that steer a message and never leave with it (COMPATIBILITY.md section 1; ``docs/headers.md``).

Names are compared without case. Values are unfolded, RFC 2047 decoded and stripped before they are looked at. A value that breaks a rule
refuses the message for good, naming the header and the rule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from attrs import Factory, define, frozen

from lettermta.header import Field
from lettermta.message import Refused, Reply

TAG_LENGTH = 255
KEY_LENGTH = 255
_TAG = re.compile(r"[a-zA-Z0-9_-]+(?:[ \t][a-zA-Z0-9_-]+)*")
"""Lettermint's rule, but that its ``\\s`` is a blank or a tab here: encoded words can say line ends, which no tag has use for."""

_REMOVED = frozenset({"x-lettermint-route", "x-tag", "idempotency-key", "bcc", "return-path"})
_REMOVED_PREFIXES = ("x-lm-", "x-metadata-", "x-lettr-")
_LM_METADATA = "x-lm-metadata-"
_METADATA = "x-metadata-"


@frozen
class MetadataBounds:
    """How much metadata a message may carry; lengths in characters, the total in octets of UTF-8."""

    keys: int = 50
    key_length: int = 255
    value_length: int = 1000
    total: int = 16_384

    def pair_fault(self, key: str, value: str) -> str | None:
        """The rule that one pair breaks, or None."""
        if not key:
            return "a metadata header has its key behind the last hyphen"
        if len(key) > self.key_length:
            return f"a metadata key has at most {self.key_length} characters"
        if len(value) > self.value_length:
            return f"a metadata value has at most {self.value_length} characters"
        if "\0" in key or "\0" in value:
            return "metadata has no NUL in it"
        return None

    def fault(self, metadata: Mapping[str, str]) -> str | None:
        """The rule that all pairs together break, or None."""
        if len(metadata) > self.keys:
            return f"a message has at most {self.keys} metadata keys"
        if sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items()) > self.total:
            return f"the metadata of a message has at most {self.total} octets in all"
        return None


@define
class Control:
    """What the control headers of one message say."""

    route: str | None = None
    """The slug of X-Lettermint-Route, or None for the project's default route."""
    tag: str | None = None
    metadata: Mapping[str, str] = Factory(dict)
    preserve_message_id: bool = False
    """X-LM-Preserve-Message-ID: true was given."""
    idempotency_key: str | None = None


def is_control(field: Field) -> bool:
    """Whether a field is for us alone and is taken out of what leaves."""
    return field.key in _REMOVED or field.key.startswith(_REMOVED_PREFIXES)


def read_control(fields: Sequence[Field], bounds: MetadataBounds) -> Control:
    """Read and check the control headers among ``fields``; raises Refused with ``550 5.6.0`` for the first rule that is broken.

    X-LM-Tag goes before X-Tag, and X-LM-Metadata-k before X-Metadata-k for each key; of several with one name the last one counts.
    """
    control = Control()
    lm_tag: Field | None = None
    tag: Field | None = None
    metadata: dict[str, Field] = {}
    lm_metadata: dict[str, Field] = {}
    for field in fields:
        key = field.key
        if key.startswith(_LM_METADATA):
            lm_metadata[field.name.rstrip()[len(_LM_METADATA) :]] = field
        elif key.startswith(_METADATA):
            metadata[field.name.rstrip()[len(_METADATA) :]] = field
        elif key == "x-lm-tag":
            lm_tag = field
        elif key == "x-tag":
            tag = field
        elif key == "x-lettermint-route":
            control.route = field.text
        elif key == "x-lm-preserve-message-id":
            control.preserve_message_id = field.text.lower() == "true"
        elif key == "idempotency-key":
            control.idempotency_key = _checked_key(field)
    if chosen := lm_tag or tag:
        control.tag = _checked_tag(chosen)
    if metadata or lm_metadata:
        control.metadata = _checked_metadata({**metadata, **lm_metadata}, bounds)
    return control


def tag_fault(tag: str) -> str | None:
    """The rule that a tag breaks, or None."""
    if len(tag) > TAG_LENGTH:
        return f"a tag has at most {TAG_LENGTH} characters"
    if _TAG.fullmatch(tag) is None:
        return "a tag is words of A-Z a-z 0-9 _ - with single blanks between them"
    return None


def _checked_tag(field: Field) -> str:
    tag = field.text
    if (rule := tag_fault(tag)) is not None:
        raise _refusal(field, rule)
    return tag


def _checked_key(field: Field) -> str:
    key = field.text
    if not 1 <= len(key) <= KEY_LENGTH:
        raise _refusal(field, f"an idempotency key has 1 to {KEY_LENGTH} characters")
    return key


def _checked_metadata(fields: Mapping[str, Field], bounds: MetadataBounds) -> Mapping[str, str]:
    metadata: dict[str, str] = {}
    for key, field in fields.items():
        metadata[key] = value = field.text
        if (rule := bounds.pair_fault(key, value)) is not None:
            raise _refusal(field, rule)
    if (rule := bounds.fault(metadata)) is not None:
        raise _refusal(field, rule)
    return metadata


def _refusal(field: Field, rule: str) -> Refused:
    """The name is the client's own text: only what a reply can carry of it is quoted, and not all of a long one."""
    name = "".join(c if " " < c < "\x7f" else "?" for c in field.name.rstrip())
    return Refused(Reply(550, "5.6.0", f"{name[:64]}: {rule}"), "control header", "control_header")
