"""docs/webhooks.md: the verification by hand works as shown, and what it says of the settings is what they are."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from lettermta.accounts.webhooks import Webhook, new_secret
from lettermta.event import NAMES
from lettermta.events.webhooks.signing import headers

PAGE = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text()


def verify() -> Any:
    (code,) = [block for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S) if "def verify" in block]
    place: dict[str, Any] = {}
    exec(compile(code, "docs/webhooks.md", "exec"), place)
    return place["verify"]


def test_the_verification_by_hand_works() -> None:
    secret, body = new_secret(), '{"event":"message.sent","subject":"Müsli"}'.encode()
    made = headers(Webhook("w", "p", "https://x.example", 0.0, secret), "id", "message.sent", body, 1, time.time())
    assert verify()(secret, made, body)["subject"] == "Müsli"
    with pytest.raises(ValueError, match="not a request"):
        verify()(secret, made, body + b" ")
    with pytest.raises(ValueError, match="not a request"):
        verify()(new_secret(), made, body)
    old = headers(Webhook("w", "p", "https://x.example", 0.0, secret), "id", "message.sent", body, 1, time.time() - 400)
    with pytest.raises(ValueError, match="not a request"):
        verify()(secret, old, body)


def test_there_are_the_21_names() -> None:
    """COMPATIBILITY.md section 3."""
    assert len(NAMES) == 21
