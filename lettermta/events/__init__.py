"""Telling others what happened, from the outbox: the event log and hooks in Python."""
