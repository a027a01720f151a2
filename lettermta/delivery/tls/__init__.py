"""What TLS a receiver's host must do before it gets mail: DANE, MTA-STS, the operator's own wish; and the reports on how that went."""
