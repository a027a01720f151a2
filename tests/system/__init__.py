"""The real daemon, started as an operator starts it, between real clients and receivers on loopback."""
