"""What MAIL's and RCPT's parameters asked for, as text in a row: JSON of what differs from the default, nothing where nothing does.

Names that a later release added and an earlier one reads are passed over.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson
from attrs import fields

from lettermta.message import BodyType, DeliverBy, Notify, Options, Recipient

_DEFAULT = Options()
_NAMES = frozenset(field.name for field in fields(Options))


def encode_options(options: Options) -> str:
    """The text of a message's options."""
    if options == _DEFAULT:
        return ""
    told: dict[str, Any] = {
        name: getattr(options, name) for name in _NAMES if name != "deliver_by" and getattr(options, name) != getattr(_DEFAULT, name)
    }
    if options.deliver_by is not None:
        told["deliver_by"] = [options.deliver_by.until, options.deliver_by.bounce, options.deliver_by.trace]
    return orjson.dumps(told).decode()


@lru_cache(maxsize=256)
def decode_options(text: str) -> Options:
    """A message's options from their text."""
    if not text:
        return _DEFAULT
    told = {name: value for name, value in orjson.loads(text).items() if name in _NAMES}
    if "body" in told:
        told["body"] = BodyType(told["body"])
    if "deliver_by" in told:
        told["deliver_by"] = DeliverBy(*told["deliver_by"])
    return Options(**told)


def encode_recipient(recipient: Recipient) -> str:
    """The text of a recipient's options."""
    if recipient.notify is None and recipient.orcpt is None:
        return ""
    notify = None if recipient.notify is None else sorted(recipient.notify)
    return orjson.dumps({"notify": notify, "orcpt": recipient.orcpt}).decode()


@lru_cache(maxsize=256)
def decode_recipient(text: str) -> tuple[frozenset[Notify] | None, str | None]:
    """NOTIFY and ORCPT of a recipient from their text."""
    if not text:
        return None, None
    told = orjson.loads(text)
    notify = told.get("notify")
    return None if notify is None else frozenset(map(Notify, notify)), told.get("orcpt")
