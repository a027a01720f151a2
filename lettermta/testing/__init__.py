"""Doubles that users and we test with."""
