"""The tests, laid out as ``lettermta`` is."""
