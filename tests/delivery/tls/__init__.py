"""TLS policies of receivers: DANE, MTA-STS, reports."""
