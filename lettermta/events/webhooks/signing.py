"""The headers of a webhook's request: Lettermint's and Standard Webhooks' in one, made for each attempt (COMPATIBILITY.md section 3)."""

from __future__ import annotations

import base64
import hmac

from lettermta.accounts.webhooks import Webhook, signing_key

TOLERANCE = 300
"""Seconds that receivers let a signature be old."""


def lettermint_signature(secret: str, timestamp: int, body: bytes) -> str:
    """The value of ``X-Lettermint-Signature``: keyed by the secret's text as it stands."""
    digest = hmac.digest(secret.encode(), b"%d.%b" % (timestamp, body), "sha256")
    return f"t={timestamp},v1={digest.hex()}"


def standard_signature(secret: str, identifier: str, timestamp: int, body: bytes) -> str:
    """One signature of ``webhook-signature`` (Standard Webhooks 1.0.0): keyed by the octets that the secret stands for."""
    digest = hmac.digest(signing_key(secret), b"%b.%d.%b" % (identifier.encode(), timestamp, body), "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"


def headers(webhook: Webhook, identifier: str, event: str, body: bytes, attempt: int, now: float) -> dict[str, str]:
    """The headers of one attempt. While a secret is rotated, Standard Webhooks' list has both, and Lettermint's header the new one."""
    timestamp = int(now)
    secrets = webhook.signing_secrets(now)
    made = {
        "Content-Type": "application/json",
        "X-Lettermint-Signature": lettermint_signature(secrets[0], timestamp, body),
        "X-Lettermint-Event": event,
        # The PHP, Laravel and Java SDKs refuse a request in which this is not the signature's t.
        "X-Lettermint-Delivery": str(timestamp),
        "X-Lettermint-Attempt": str(attempt),
        "webhook-id": identifier,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(standard_signature(secret, identifier, timestamp, body) for secret in secrets),
    }
    if webhook.username is not None:
        login = base64.b64encode(f"{webhook.username}:{webhook.password or ''}".encode()).decode()
        made["Authorization"] = f"Basic {login}"
    return made
