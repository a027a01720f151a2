"""Fuzz targets: what a client, a peer or an operator can write, thrown at the parser that has to read it.

Each ``fuzz_NAME.py`` has ``one(data)``, which takes any octets and fails (any exception) where a promise is broken: an exception that the
parser doesn't declare, a control character in a result, time out of proportion, a different outcome for a different split of the same
octets. ``TOKENS`` are the words that an engine had better know. Seeds lie in ``corpus/NAME/``.

``python -m fuzz NAME --seconds 60`` runs one with atheris (coverage-guided; the extra ``fuzz``), or, where that is not to be had, with the
mutator of this package. ``make fuzz`` runs them all; ``tests/test_fuzz.py`` does, for a moment, in CI.
"""
