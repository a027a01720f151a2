"""What is counted, all of it, by name and label (``docs/metrics.md`` is printed from here):
a module for each step of the way, and this is their face.

A part counts by the names below: ``metrics.SPOOL_COMMIT_FAILURES.inc()``, ``metrics.RECIPIENTS[State.DELIVERED].inc()``. What is looked
up on a hot path is taken once, in an ``__init__`` or at module level. Gauges that nobody keeps up to date are set by a part's function,
which the wiring hands to :meth:`Registry.measure`. No label holds an address, a domain, a token or an id. A new metric is declared in
the module that it belongs to, and is here with that.
"""

# ruff: noqa: F403 -- every name of a metric is in its module alone

from lettermta.metrics.accounts import *
from lettermta.metrics.delivery import *
from lettermta.metrics.edge import *
from lettermta.metrics.events import *
from lettermta.metrics.names import *
from lettermta.metrics.outgoing_tls import *
from lettermta.metrics.parts import REGISTRY as REGISTRY
from lettermta.metrics.process import *
from lettermta.metrics.receivers import *
from lettermta.metrics.registry import OTHER as OTHER
from lettermta.metrics.registry import Family as Family
from lettermta.metrics.registry import Label as Label
from lettermta.metrics.registry import Measure as Measure
from lettermta.metrics.registry import Registry as Registry
from lettermta.metrics.storage import *
from lettermta.metrics.submission import *
