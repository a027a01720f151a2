"""The ways out: by MX, through a smarthost, into a Maildir, into nothing. Each provides ``interfaces.ITransport``."""
