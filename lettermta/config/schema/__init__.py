"""Every section and key there is, declared once: the reader, ``etc/mta.ini`` and ``docs/configuration.md`` follow from this package.

A new key is one line in its section's class; a new section is one class, in the module that it belongs to, and one line in :class:`Config`.
A section's name in the file is its class's name in lower case, and the docstring is what the operator reads about it. A key enters the
schema when it works.

Sections can also be made in Python, by keywords; whatever is left out has the same default as in the file. The kinds and what a section
objects to are then not asked.
"""

from __future__ import annotations

from pathlib import Path

import attrs
from attrs import frozen

from lettermta.config.schema.declaring import Section
from lettermta.config.schema.delivery import Delivery, Dns
from lettermta.config.schema.events import Amqp, Events, Hook
from lettermta.config.schema.listening import Http, Listener, Role, Unsubscribe
from lettermta.config.schema.machine import Mta, Tls
from lettermta.config.schema.receivers import Shaping, Throttle
from lettermta.config.schema.sources import Pool, Source
from lettermta.config.schema.submission import Limits, Policy, Submission


@frozen(kw_only=True)
class Config:
    """The whole file. Paths in it are absolute, durations are in seconds, sizes in octets."""

    path: Path
    mta: Mta = attrs.field(factory=Mta, metadata={"section": Mta})
    tls: Tls = attrs.field(factory=Tls, metadata={"section": Tls})
    listeners: tuple[Listener, ...] = attrs.field(default=(), metadata={"section": Listener})
    submission: Submission = attrs.field(factory=Submission, metadata={"section": Submission})
    policies: tuple[Policy, ...] = attrs.field(default=(), metadata={"section": Policy})
    limits: Limits = attrs.field(factory=Limits, metadata={"section": Limits})
    dns: Dns = attrs.field(factory=Dns, metadata={"section": Dns})
    delivery: Delivery = attrs.field(factory=Delivery, metadata={"section": Delivery})
    shaping: tuple[Shaping, ...] = attrs.field(default=(), metadata={"section": Shaping})
    sources: tuple[Source, ...] = attrs.field(default=(), metadata={"section": Source})
    pools: tuple[Pool, ...] = attrs.field(default=(), metadata={"section": Pool})
    events: Events = attrs.field(factory=Events, metadata={"section": Events})
    hooks: tuple[Hook, ...] = attrs.field(default=(), metadata={"section": Hook})
    amqp: Amqp = attrs.field(factory=Amqp, metadata={"section": Amqp})
    http: Http = attrs.field(factory=Http, metadata={"section": Http})
    unsubscribe: Unsubscribe = attrs.field(factory=Unsubscribe, metadata={"section": Unsubscribe})

    throttles: tuple[Throttle, ...] = ()
    """What ``[delivery] throttle_rules`` holds."""

    @property
    def takes_returns(self) -> bool:
        """Whether a listener takes what comes back to return paths."""
        return any(listener.role is not Role.SUBMISSION for listener in self.listeners)

    @classmethod
    def sections(cls) -> dict[str, tuple[str, type[Section]]]:
        """The sections' names in the file, in their order, each with its attribute here and its class."""
        parts = [(field.name, field.metadata.get("section")) for field in attrs.fields(cls)]
        return {part.__name__.lower(): (name, part) for name, part in parts if part is not None}
