"""The crash ledger: the real daemon is killed over and over, and what it promised is held against what came of it.

`python -m crash` (`make crash`) runs the long form; `docs/durability.md` says what is shown and how. The parts: ``shim.c`` lies between
the daemon and its files, ``power`` takes away what was not synced, ``senders`` and ``sink`` are the two ends, ``points`` says where it
dies, ``arena`` kills, ``ledger`` judges, ``report`` tells.
"""
