"""What a message that came back is: the standards' own forms first, then home-made ones, then automatic answers."""

from __future__ import annotations

from lettermta.delivery.returns.feedback import feedback_finding
from lettermta.delivery.returns.finding import Finding, Kind
from lettermta.delivery.returns.forms import automatic_finding, form_finding, from_mail_system
from lettermta.delivery.returns.mime import Parsed
from lettermta.delivery.returns.status import status_finding


def recognise(parsed: Parsed, recipient: str | None = None, null_sender: bool = True) -> Finding:
    """What the message tells of ``recipient`` (None: whoever it is on). Never fails: what is nothing known is unrecognised.

    Reports go before automatic answers, since many of them say that they are automatic. A home-made report has to come from the null
    sender, or from who calls itself a mail system: a person who quotes one in an answer reports nothing.
    """
    return (
        status_finding(parsed, recipient)
        or feedback_finding(parsed)
        or (form_finding(parsed) if null_sender or from_mail_system(parsed) else None)
        or automatic_finding(parsed)
        or Finding(Kind.UNRECOGNISED)
    )
