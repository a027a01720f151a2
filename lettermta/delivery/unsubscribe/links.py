"""Mail with a link to unsubscribe: what has none of its own gets one as it leaves, each recipient another.

Two fields go on top (RFC 2369 section 3.2, RFC 8058 section 3.1):

    List-Unsubscribe: <https://news.example.com/unsubscribe/TOKEN>
    List-Unsubscribe-Post: List-Unsubscribe=One-Click

Which mail it is has been decided when it was submitted (:attr:`~lettermta.message.Options.unsubscribe`). The fields are there before it is
signed, since the signature has to cover them (RFC 8058 section 4), and before it is converted. A link is for one recipient, so such mail
goes to each by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from attrs import evolve, frozen

from lettermta.accounts.directory import Directory
from lettermta.delivery.leaving import ToppedContent, WholeContent
from lettermta.delivery.unsubscribe.token import Unsubscription
from lettermta.interfaces import IStoredContent
from lettermta.message import QueueEntry

_LONGEST_LINE = 998
"""Octets of a line without its CRLF (RFC 5322 section 2.1.1)."""
_FIELDS = "List-Unsubscribe: <{}>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
_ROOM = _LONGEST_LINE - len("List-Unsubscribe: <>")


@frozen(eq=False)
class Links:
    """Makes the links of one daemon, all below ``url``."""

    directory: Directory
    url: str

    def parted(self, entry: QueueEntry) -> Sequence[QueueEntry]:
        """The entry as it is, or one for each recipient, where each is to have a link."""
        if not entry.options.unsubscribe or len(entry.recipients) == 1:
            return (entry,)
        return [evolve(entry, recipients=[recipient]) for recipient in entry.recipients]

    def recipient(self, entry: QueueEntry) -> str | None:
        """Whose link the entry's mail has; None: it has none."""
        return entry.recipients[0].address if entry.options.unsubscribe and len(entry.recipients) == 1 else None

    def topped(self, entry: QueueEntry, content: IStoredContent) -> IStoredContent:
        """The content with the link of the entry's recipient on top, or as it is where it is to have none."""
        address = self.recipient(entry)
        if address is None:
            return content
        top = _FIELDS.format(self.link(entry, address)).encode()
        whole = content.whole()
        return ToppedContent(top, content) if whole is None else WholeContent(top + whole)

    def link(self, entry: QueueEntry, address: str) -> str:
        """The link. It knows the tag, unless the line would get too long of that: it is told only once the message itself is forgotten."""
        project_id: str = orjson.loads(entry.context)["project_id"]
        meant = Unsubscription(entry.id, project_id, address, orjson.loads(entry.facts)["tag"])
        link = self._link(meant)
        return link if len(link) <= _ROOM else self._link(evolve(meant, tag=None))

    def _link(self, meant: Unsubscription) -> str:
        return f"{self.url}/{meant.token(self.directory.unsubscribe_key)}"
