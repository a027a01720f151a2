"""The request's headers, by the vectors that the two schemes publish (COMPATIBILITY.md section 3)."""

from __future__ import annotations

import base64

from lettermta.accounts.webhooks import Webhook
from lettermta.events.webhooks.signing import headers, lettermint_signature, standard_signature

BODY = b'{"test": 2432232314}'
LETTERMINT = "whsec_Q2hhbmdlTWVJbkFSZWFsU2VjcmV0MTIzNDU2"
STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def webhook(**more: object) -> Webhook:
    return Webhook("w", "p", "https://x.example/", 0.0, LETTERMINT, **more)


def test_lettermints_vector() -> None:
    expected = "t=1614265330,v1=e4edcf29f3730c47e506ae7d3b8b1c7706ab83607dc4949b9f8ef8fac99a375f"
    assert lettermint_signature(LETTERMINT, 1614265330, BODY) == expected


def test_standard_webhooks_vector() -> None:
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert standard_signature(STANDARD, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, BODY) == expected


def test_both_sets_of_headers_are_in_one_request() -> None:
    made = headers(webhook(), "id", "message.delivered", BODY, 3, 1614265330.9)
    assert made == {
        "Content-Type": "application/json",
        "X-Lettermint-Signature": lettermint_signature(LETTERMINT, 1614265330, BODY),
        "X-Lettermint-Event": "message.delivered",
        "X-Lettermint-Delivery": "1614265330",
        "X-Lettermint-Attempt": "3",
        "webhook-id": "id",
        "webhook-timestamp": "1614265330",
        "webhook-signature": standard_signature(LETTERMINT, "id", 1614265330, BODY),
    }


def test_while_rotating_standards_list_has_both_and_lettermints_header_the_new_one() -> None:
    rotating = webhook(former_secret=STANDARD, former_until=2000.0)
    during, behind = (headers(rotating, "id", "e", BODY, 1, now) for now in (1999.0, 2000.0))
    assert during["X-Lettermint-Signature"] == lettermint_signature(LETTERMINT, 1999, BODY)
    both = [standard_signature(secret, "id", 1999, BODY) for secret in (LETTERMINT, STANDARD)]
    assert during["webhook-signature"] == " ".join(both)
    assert behind["webhook-signature"] == standard_signature(LETTERMINT, "id", 2000, BODY)


def test_basic_authentication() -> None:
    made = headers(webhook(username="shop", password="p:ä"), "id", "e", BODY, 1, 0.0)
    assert made["Authorization"] == "Basic " + base64.b64encode("shop:p:ä".encode()).decode()
    assert "Authorization" not in headers(webhook(), "id", "e", BODY, 1, 0.0)
