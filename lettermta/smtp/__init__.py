"""The wire, for both ends: grammar, replies, reading content, TLS on a stream. Knows no accounts and no spool."""
