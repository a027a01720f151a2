"""What the configuration names outside its file: certificates, and what users plug in.

It is looked at when a daemon starts and by ``lettermta-admin check-config``, not by the tools for queue and accounts: they have to work
while a certificate is being renewed. Promises that all that can't be used is told at once, as faults of the file, with their lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from attrs import frozen
from zope.interface.interface import InterfaceClass

from lettermta.config import Config, ConfigError, Fault, Hook, Policy, located
from lettermta.interfaces import IEventHook, ISubmissionPolicy
from lettermta.plugged import NO_SETTINGS, Unpluggable, plug, pluggable
from lettermta.smtp.tls import CertificatePair, KeyFault, ServerTLS, TLSFault

Take = Callable[[str, InterfaceClass, Mapping[str, str]], Any]
"""Makes what a dotted name stands for, or looks at it; raises Unpluggable."""


@frozen
class PluggedIn:
    """What users plug in, made, each with its dotted name."""

    hooks: Sequence[tuple[str, IEventHook]] = ()
    policies: Sequence[tuple[str, ISubmissionPolicy]] = ()


def certificate_pairs(config: Config) -> list[CertificatePair]:
    """The pairs of ``[tls]``, in their order."""
    return [CertificatePair(*pair) for pair in zip(config.tls.certificate, config.tls.private_key, strict=True)]


def certificate_faults(config: Config) -> list[Fault]:
    """What is wrong with certificates and keys, each pair judged by itself."""
    faults = []
    for pair in certificate_pairs(config):
        try:
            ServerTLS([pair], config.tls.minimum, config.tls.ciphers)
        except TLSFault as error:
            key, path = ("private_key", pair.private_key) if isinstance(error, KeyFault) else ("certificate", pair.certificate)
            faults.append(located(config.path, "tls", key, path, str(error)))
    return faults


def plugged_in(config: Config) -> PluggedIn:
    """What the configuration names of the user's, made; raises ConfigError with all that can't be had, certificates too."""
    return _looked_at(config, plug)


def check(config: Config) -> None:
    """The same without making anything: what can be said of hooks and policies by looking at them. Raises ConfigError."""
    _looked_at(config, pluggable)


def _looked_at(config: Config, take: Take) -> PluggedIn:
    hooks, missed = _each(config, "events", "hooks", config.hooks, IEventHook, take)
    policies, missed_too = _each(config, "submission", "policies", config.policies, ISubmissionPolicy, take)
    faults = certificate_faults(config) + missed + missed_too + _broker_faults(config)
    if faults:
        raise ConfigError(faults)
    return PluggedIn(hooks, policies)


def _each(
    config: Config,
    section: str,
    key: str,
    sections: Sequence[Hook | Policy],
    interface: InterfaceClass,
    take: Take,
) -> tuple[list[tuple[str, Any]], list[Fault]]:
    given = {each.name: each.settings for each in sections}
    found, faults = [], []
    for dotted in getattr(getattr(config, section), key):
        try:
            found.append((dotted, take(dotted, interface, given.get(dotted, NO_SETTINGS))))
        except Unpluggable as error:
            faults.append(located(config.path, section, key, dotted, str(error)))
    return found, faults


def _broker_faults(config: Config) -> list[Fault]:
    if config.amqp.url is None or find_spec("pika") is not None:
        return []
    return [located(config.path, "amqp", "url", "", "this needs the package pika", "an install with it: pip install 'lettermta[amqp]'")]
