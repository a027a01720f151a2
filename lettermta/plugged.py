"""What users plug in: objects found by their dotted names, made with their settings, and asked within a time limit.

Promises that what can't be used is found at the start and named with what was expected, and that an answer which never comes holds up
nobody behind its limit. What a plugged-in object does in the reactor's thread is its author's: one that blocks holds up the process.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface.exceptions import Invalid
from zope.interface.interface import InterfaceClass
from zope.interface.verify import verifyObject

FAULTS: tuple[type[BaseException], ...] = (Exception, SystemExit, asyncio.CancelledError)
"""What a plugged-in object may raise: also what is no Exception, but ends neither the process nor who asked."""
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


class Unpluggable(ValueError):
    """An object can't be had by its name; the text tells what is wrong, and what was expected."""


class TooSlow(Exception):
    """No answer came within the limit."""


def plug(dotted: str, interface: InterfaceClass, settings: Mapping[str, str] = NO_SETTINGS) -> Any:
    """What ``package.module.Name`` stands for: a class or a factory, called with ``settings`` by keyword, or the object itself.

    Raises :class:`Unpluggable` unless that comes to something which provides ``interface``.
    """
    named = _found(dotted)
    plugged = named if _is_there(dotted, named, interface, settings) else _made(dotted, named, interface, settings)
    try:
        verifyObject(interface, plugged)
    except Invalid as error:
        raise _unprovided(dotted, interface, " ".join(str(error).split())) from error
    return plugged


def pluggable(dotted: str, interface: InterfaceClass, settings: Mapping[str, str] = NO_SETTINGS) -> None:
    """Raise :class:`Unpluggable` where :func:`plug` would, as far as that can be told without making anything."""
    named = _found(dotted)
    if not _is_there(dotted, named, interface, settings):
        _factory(dotted, named, interface, settings)
        if inspect.isclass(named) and not interface.implementedBy(named):
            raise _unprovided(dotted, interface, "it does not declare that it implements the interface")


def _unprovided(dotted: str, interface: InterfaceClass, reason: str) -> Unpluggable:
    method = next(iter(interface.namesAndDescriptions()))[1]
    expected = f"a class with @implementer({interface.__name__}) and a method {method.getName()}{_signature(method)}"
    return Unpluggable(f"{dotted!r}: does not provide {interface.__name__}: {reason}; expected {expected}")


def _is_there(dotted: str, named: Any, interface: InterfaceClass, settings: Mapping[str, str]) -> bool:
    if inspect.isclass(named) or not interface.providedBy(named):
        return False
    if settings:
        raise Unpluggable(f"{dotted!r} is an object that is there already; expected a class or a factory, which can take its settings")
    return True


def _found(dotted: str) -> Any:
    module_name, _, name = dotted.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in dotted.split(".")):
        raise Unpluggable(f"{dotted!r}: expected a dotted name like package.module.Class")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise Unpluggable(f"{dotted!r}: module {module_name!r} cannot be imported: {_said(error)}; expected it on Python's path") from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise Unpluggable(f"{dotted!r}: module {module_name!r} has no {name!r}; expected a class, a factory or an object") from error


def _made(dotted: str, named: Any, interface: InterfaceClass, settings: Mapping[str, str]) -> object:
    factory = _factory(dotted, named, interface, settings)
    try:
        return factory(**settings)
    except Exception as error:
        given = f"with {', '.join(sorted(settings))}" if settings else "without arguments"
        raise Unpluggable(f"{dotted!r}: making it failed: {_said(error)}; expected it to be made {given}") from error


def _factory(dotted: str, named: Any, interface: InterfaceClass, settings: Mapping[str, str]) -> Callable[..., object]:
    """What can be called with these settings, as far as its signature tells."""
    if not callable(named):
        raise Unpluggable(
            f"{dotted!r}: is {type(named).__name__}; expected a class, a factory or an object that provides {interface.__name__}"
        )
    factory: Callable[..., object] = named
    try:
        inspect.signature(factory).bind(**settings)
    except TypeError as error:
        raise Unpluggable(f"{dotted!r}: {error}; expected a section of its own with what it takes: {_takes(factory)}") from error
    except ValueError:
        pass  # its signature can't be known; the call will tell
    return factory


def _takes(factory: Callable[..., object]) -> str:
    parameters = inspect.signature(factory).parameters.values()
    return ", ".join(f"{one.name}{'' if one.default is one.empty else ' (may be left out)'}" for one in parameters) or "nothing"


def _signature(method: Any) -> str:
    return "(self, " + str(method.getSignatureString()).lstrip("(")


def _said(error: Exception) -> str:
    # Never the settings' values, which may be secrets: an error that quotes them is its author's.
    return f"{type(error).__name__}: {error}"


def answered(answer: object) -> Deferred[Any] | object:
    """What a method came back with, a coroutine made a Deferred."""
    return Deferred.fromCoroutine(answer) if inspect.iscoroutine(answer) else answer


def within(waiting: Deferred[Any], seconds: float, clock: IReactorTime) -> Deferred[Any]:
    """Fires as ``waiting`` does, or fails with :class:`TooSlow` behind ``seconds``, also when that doesn't take being cancelled."""
    result: Deferred[Any] = Deferred(lambda _: waiting.cancel())

    def late() -> None:
        result.errback(TooSlow(f"no answer within {seconds:g} s"))
        waiting.cancel()

    limit = clock.callLater(seconds, late)

    def done(outcome: Any) -> None:
        if not limit.active():
            return  # too late: nobody waits for it any more
        limit.cancel()
        if isinstance(outcome, Failure):
            result.errback(outcome)
        else:
            result.callback(outcome)

    waiting.addBoth(done)
    return result
