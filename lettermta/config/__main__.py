"""``python -m lettermta.config ini`` prints etc/mta.ini, ``python -m lettermta.config markdown`` prints docs/configuration.md."""

import sys

from lettermta.config.reference import reference_ini, reference_markdown

PAGES = {"ini": reference_ini, "markdown": reference_markdown}

if len(sys.argv) != 2 or sys.argv[1] not in PAGES:
    sys.exit("usage: python -m lettermta.config ini|markdown")
sys.stdout.write(PAGES[sys.argv[1]]())
