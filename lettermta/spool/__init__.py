"""Durability: messages, recipients, their state and the events outbox; one commit for what belongs together."""
