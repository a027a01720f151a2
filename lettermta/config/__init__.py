"""The configuration file: INI, strict, every fault reported at once with its line (``docs/configuration.md`` is the operator's page).

:func:`load` returns a :class:`Config` whose values are right in themselves and together, or raises :class:`ConfigError`; it opens the
file and the certificates that it names, and touches neither network nor reactor. ``schema`` declares sections and keys, ``kinds`` what
values may be, ``ini.py`` reads the form, ``reading.py`` fills the schema, ``reference.py`` prints ``etc/mta.ini`` and the page.
"""

from lettermta.config.faults import ConfigError, Fault
from lettermta.config.kinds import HostPort, Network, Rate
from lettermta.config.reading import load, load_sections, located
from lettermta.config.reference import reference_ini, reference_markdown
from lettermta.config.schema import Config
from lettermta.config.schema.delivery import Delivery, DeliveryTLS, Dns
from lettermta.config.schema.events import Amqp, Events, Hook, Unroutable
from lettermta.config.schema.listening import AuthBeforeTLS, Http, Listener, Role, Security, Unsubscribe
from lettermta.config.schema.machine import Mta, Tls, TLSVersion
from lettermta.config.schema.receivers import Shaping, Throttle
from lettermta.config.schema.submission import BareLineEnds, EightBitHeaders, Limits, Policy, PolicyFailure, Submission

__all__ = [
    "Amqp",
    "AuthBeforeTLS",
    "BareLineEnds",
    "Config",
    "ConfigError",
    "Delivery",
    "DeliveryTLS",
    "Dns",
    "EightBitHeaders",
    "Events",
    "Fault",
    "Hook",
    "HostPort",
    "Http",
    "Limits",
    "Listener",
    "Mta",
    "Network",
    "Policy",
    "PolicyFailure",
    "Rate",
    "Role",
    "Security",
    "Shaping",
    "Submission",
    "TLSVersion",
    "Throttle",
    "Tls",
    "Unroutable",
    "Unsubscribe",
    "load",
    "load_sections",
    "located",
    "reference_ini",
    "reference_markdown",
]
