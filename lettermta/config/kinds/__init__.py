"""What a value may look like: each kind turns text into a value, and says in words what it takes.

A kind raises :class:`~lettermta.config.faults.Wrong` with the part of the text that is wrong, and nothing else. The only kinds that look
outside the text are those of ``files.py``, which open what they name.
"""

# ruff: noqa: F403 -- every kind is in its module alone, and this is their face

from lettermta.config.kinds.broker import *
from lettermta.config.kinds.ciphers import *
from lettermta.config.kinds.files import *
from lettermta.config.kinds.kind import *
from lettermta.config.kinds.names import *
from lettermta.config.kinds.network import *
from lettermta.config.kinds.quantities import *
from lettermta.config.kinds.web import *
