"""Real clients against a real daemon, with the very code of ``docs/clients.md``: ``make test-clients``."""
