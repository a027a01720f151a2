"""``python -m lettermta.metrics`` prints docs/metrics.md."""

import sys

from lettermta.metrics.page import page

sys.stdout.write(page())
