"""What a server under test is told to answer otherwise, stage by stage."""

from __future__ import annotations

from attrs import define, field

STAGES = frozenset(["CONNECT", "EHLO", "HELO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "DOT", "BDAT", "RSET", "NOOP", "QUIT"])


@define
class Rule:
    """One answer that differs: ``reply`` in octets (None: the usual one), late by ``delay`` seconds, or with the connection dropped."""

    stage: str
    reply: bytes | None
    recipient: str | None
    times: int | None
    delay: float
    drop: bool

    def fits(self, stage: str, recipient: str | None) -> bool:
        """Whether it is to be followed here."""
        return self.stage == stage and self.times != 0 and (self.recipient is None or self.recipient == recipient)

    @property
    def positive(self) -> bool:
        """Whether the client is told that all is well."""
        return self.reply is None or self.reply[:1] in (b"2", b"3")


@define
class Script:
    """The rules in force."""

    _rules: list[Rule] = field(factory=list)

    def add(self, rule: Rule) -> None:
        """One more; of several that fit, the first one counts."""
        if rule.stage not in STAGES:
            raise ValueError(f"no stage {rule.stage!r}: {sorted(STAGES)}")
        self._rules.append(rule)

    def clear(self) -> None:
        """None at all."""
        self._rules.clear()

    def rule(self, stage: str, recipient: str | None = None) -> Rule | None:
        """The rule that is to be followed now; counts as followed."""
        for rule in self._rules:
            if rule.fits(stage, recipient):
                if rule.times is not None:
                    rule.times -= 1
                return rule
        return None
