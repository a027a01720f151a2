"""How a section and its keys are declared, and what the reader and the pages ask of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, dataclass_transform

import attrs
from attrs import frozen

from lettermta.config import kinds
from lettermta.config.faults import Objection
from lettermta.config.kinds import Kind

T = TypeVar("T")


@frozen
class Key:
    """All there is to know of a key: its name, its kind and what the operator reads."""

    name: str
    kind: Kind[Any]
    doc: str
    default: str | Callable[[], str] | None
    """The default as it would be written in the file, or what makes it; None: the key is required."""
    shown: str
    """The default in words, when it isn't a fixed text."""
    example: str
    postfix: str
    """What Postfix calls it."""
    titles: bool
    """Its value is not on a line of its own but in the section's header, behind the section's name."""
    rest: bool = False
    """Not a key but all those that the section has and the schema doesn't know, as a mapping of texts."""

    def default_text(self) -> str:
        """The default as it would be written in the file; only for keys that have one."""
        assert self.default is not None
        return self.default if isinstance(self.default, str) else self.default()


def key(
    kind: Kind[T],
    doc: str,
    *,
    default: str | Callable[[], str] | None = None,
    shown: str = "",
    example: str = "",
    postfix: str = "",
    titles: bool = False,
) -> T:
    """Declare a key, as the value of a class's attribute; see :class:`Key`."""
    metadata = {"kind": kind, "doc": doc, "default": default, "shown": shown, "example": example, "postfix": postfix, "titles": titles}
    if default is None:
        field = attrs.field(metadata=metadata)
    else:
        field = attrs.field(metadata=metadata, factory=lambda: kind.parse(default if isinstance(default, str) else default(), Path("/")))
    return field  # type: ignore[no-any-return]


def rest(doc: str, *, example: str) -> Mapping[str, str]:
    """Declare that a section takes keys of any name, for somebody else to judge; ``example`` is one of them with its value."""
    told = {"kind": kinds.TEXT, "doc": doc, "default": "", "shown": "", "example": example, "postfix": ""}
    return attrs.field(metadata={**told, "titles": False, "rest": True}, factory=dict)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(key, rest))
class Section:
    """A section of the file; each subclass is a frozen attrs class whose fields are its keys."""

    least: ClassVar[int] = 0
    """How many the file must have, of those with a name."""

    def __init_subclass__(cls) -> None:
        attrs.frozen(cls, kw_only=True, slots=False)

    @classmethod
    def declared(cls) -> list[Key]:
        """The section's keys, in their order."""
        return [Key(field.name, **field.metadata) for field in attrs.fields(cls)]  # type: ignore[arg-type]

    @classmethod
    def written(cls) -> list[Key]:
        """Those keys that have a line of their own."""
        return [key for key in cls.declared() if not key.titles and not key.rest]

    @classmethod
    def open_to(cls) -> Key | None:
        """What stands for keys of any name, in a section that takes them."""
        return next((key for key in cls.declared() if key.rest), None)

    @classmethod
    def named(cls) -> bool:
        """Whether the file may have several of them, each with a name: ``[listener smtp]``."""
        return any(key.titles for key in cls.declared())

    def objections(self) -> Iterable[Objection]:
        """What is wrong with the values together."""
        return ()
