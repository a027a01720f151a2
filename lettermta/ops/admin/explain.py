"""``lettermta-admin explain``: what would become of mail to an address, on one screen."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lettermta.accounts.directory import Directory
from lettermta.accounts.errors import InvalidAccount, NoSuchAccount
from lettermta.accounts.model import Project, Route, RouteKind
from lettermta.accounts.store import AccountStore
from lettermta.config import Config
from lettermta.delivery.explaining import Explainer
from lettermta.delivery.tls.policy import UNCOUNTED
from lettermta.message import domain_of
from lettermta.ops.admin.given import Misused
from lettermta.ops.admin.running import run
from lettermta.ops.command_line import Parser
from lettermta.ops.queue_source import Daemon, Source, source
from lettermta.smtp.grammar import SyntaxFault, forward_path
from lettermta.suppression import values_of

_LABEL = 13
_DOWN = "no daemon runs"
Told = dict[str, Any]


def add_command(command: Parser) -> None:
    """Add the options of the one command."""
    command.set_defaults(verb=_explain)
    command.add_argument("address", metavar="ADDRESS", help="like user@example.com")
    command.add_argument("--project", metavar="SLUG", help="whose mail; needed where there are several projects")
    command.add_argument("--route", metavar="SLUG", help="by which of the project's routes; its default one unless said otherwise")


def _explain(args: argparse.Namespace, store: AccountStore) -> None:
    address = args.address
    if not _is_address(address):
        raise InvalidAccount(f"{address!r} is no address: expected user@example.com")
    project = _project(args, store)
    routes = store.routes(project.slug)
    route = next((route for route in routes if (route.slug == args.route if args.route else route.default)), None)
    if route is None:
        raise NoSuchAccount(f"project {project.slug} has no route {args.route}")
    told = {"address": address, "project": project.slug, "route": route.slug, **_asked(args, address, route)}
    told["unsubscribe"] = unsubscribe_url(args.settings, route)
    spool = _spool(args)
    told["suppression"] = [] if spool is None else list(_suppressions(spool, address, project, route))
    told["destination"]["state"] = _state(spool, address, route, told["destination"])
    told["next"] = _next(told)
    print(json.dumps(told) if args.json else "\n".join(_screen(told)))


def _is_address(text: str) -> bool:
    """Whether mail to it would be taken (RFC 5321 section 4.1.2)."""
    try:
        path, _ = forward_path(b"TO:<%b>" % text.encode("utf-8", "surrogateescape"))
    except SyntaxFault:
        return False
    return path == text.removesuffix(".")


def _project(args: argparse.Namespace, store: AccountStore) -> Project:
    if args.project:
        return store.project(args.project)
    projects = store.projects()
    if len(projects) != 1:
        slugs = ", ".join(project.slug for project in projects[:10])
        raise Misused(f"whose mail? --project SLUG ({slugs})" if projects else "there is no project yet: `project create` makes one")
    return projects[0]


def _asked(args: argparse.Namespace, address: str, route: Route) -> Told:
    """What delivery's own parts tell."""
    from lettermta.wiring import (  # it knows all parts, which other commands need not load
        make_resolver,
        make_routing,
        make_sources,
        make_tls_policies,
    )

    directory = Directory(args.settings.mta.state_dir)

    async def ask(reactor: Any) -> Told:
        resolver = make_resolver(args.settings, reactor)
        policies = make_tls_policies(args.settings, reactor, resolver, UNCOUNTED)
        await policies.start()
        try:
            routing = make_routing(args.settings, reactor, directory, resolver, policies, make_sources(args.settings, reactor))
            return await Explainer(routing, directory, args.settings.takes_returns).explain(address, route)
        finally:
            await policies.stop()

    try:
        return run(ask)
    finally:
        directory.close()


def unsubscribe_url(settings: Config, route: Route) -> str | None:
    """Below what the links to unsubscribe are that a route's mail gets; None: it gets none."""
    return settings.unsubscribe.url if route.kind is RouteKind.BROADCAST else None


def _spool(args: argparse.Namespace) -> Source | None:
    try:
        return source(args.settings.mta.state_dir)
    except FileNotFoundError:
        return None


def _suppressions(spool: Source, address: str, project: Project, route: Route) -> Iterator[Mapping[str, Any]]:
    """Those that keep this mail back: an unsubscription keeps back what goes by routes for broadcasts alone."""
    for value in values_of(address):
        for row in spool.ask("suppressions", filters={"value": value}):
            ours = row["scope"] == "global" or (row["project"] == project.slug and row["route"] in (None, route.slug))
            if ours and row["applies_to"] in ("all", route.kind.value):
                yield row


def _state(spool: Source | None, address: str, route: Route, destination: Told) -> Mapping[str, Any] | None:
    """How the destination stands in the daemon; None where no daemon runs."""
    if not isinstance(spool, Daemon):
        return None
    named = {"key": destination["key"], "flow": destination["flow"]}
    return next(spool.ask("destination", route_id=route.id, domain=domain_of(address), **named))


def _next(told: Told) -> Told:
    """When a message that came in now would be tried: ``in`` seconds, and why not at once; None: never."""
    if told["suppression"]:
        return {"in": None, "why": "suppressed: no attempt is made"}
    if told["fault"] and told["fault"].startswith("5"):
        return {"in": None, "why": "it fails at once"}
    state = told["destination"]["state"]
    if state is None:
        return {"in": None, "why": _DOWN}
    waits = [
        (state.get("paused_for") or 0.0, "the receiver is left alone, since it pushed back"),
        (state.get("probe_in") or 0.0, "it could not be reached; the next try is then"),
        (state.get("next_message_in") or 0.0, "the rate is used up until then"),
    ]
    seconds, why = max(waits)
    if not seconds:
        why = "and it is put off, as it can't go anywhere" if told["fault"] else ""
    return {"in": seconds, "why": why}


# -- one screen


def _screen(told: Told) -> Iterator[str]:
    yield f"{told['address']}  by route {told['route']} of project {told['project']}, transport {told['transport']}"
    yield ""
    yield from _lines("suppressed", [_suppressed(row) for row in told["suppression"]] or ["no"])
    if told["fault"] and not told["mx"]:
        yield from _lines("way", [told["fault"]])
    asked: Sequence[str] = ()
    for number, host in enumerate(told["mx"]):
        before, asked = asked, _asked_of(host)
        yield from _lines("" if number else "hosts", [*_host(host), *(asked if asked != before else ())])
    if told["sources"]:
        yield from _lines("sources", [f"pool {told['sources']['pool']}", *map(_source, told["sources"]["sources"])])
    if told["limits"]:
        yield from _lines("destination", _destination(told["destination"]))
        yield from _lines("limits", [_limits(told["limits"])])
    yield from _lines("next attempt", [_when(told["next"])])
    if told["next"]["in"] is not None or told["next"]["why"] == _DOWN:
        yield from _lines("tried again", [_schedule(told)])
    if told["unsubscribe"]:
        yield from _lines("unsubscribe", [f"a link below {told['unsubscribe']}, unless the message has List-Unsubscribe"])
    yield from _lines("mail from", [_sender(domain) for domain in told["senders"]] or ["any domain: not signed, return path as it came"])


def _lines(label: str, texts: Sequence[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        yield f"{'' if number else label:<{_LABEL}} {text}".rstrip()


def _suppressed(row: Mapping[str, Any]) -> str:
    whose = "for everybody" if row["scope"] == "global" else f"for {'/'.join(filter(None, (row['project'], row['route'])))}"
    return f"{row['value']} {whose}: {row['reason']}, since {row['created'][:19]}Z"


def _host(host: Mapping[str, Any]) -> list[str]:
    where = ", ".join(host["addresses"])
    lines = [f"{host['rank']}. {host['host']}  {where}".rstrip()]
    if host["fault"]:
        lines.append(f"   not used: {host['fault']}")
    return lines


def _asked_of(host: Mapping[str, Any]) -> list[str]:
    """What is asked of a host's TLS; told once of hosts in a row that are asked the same."""
    tls = host["tls"]
    if not tls:
        return []
    return [f"   TLS {tls['policy']}: {tls['why']}", *([f"   but {tls['fault']}"] if tls["fault"] else [])]


def _source(source: Mapping[str, Any]) -> str:
    text = f"  {', '.join(source['addresses'])} as {source['hostname']}"
    if plan := source["warm_up"]:
        text += f", new: day {plan['day']} of {plan['days']}, {plan['granted']} of {plan['a_day']} messages for this receiver"
    return text


def _destination(destination: Told) -> list[str]:
    state = destination["state"]
    if state is None:
        return [destination["key"], "no daemon runs, so there is no state"]
    if not state:
        return [destination["key"], "nothing was sent there lately"]
    told = []
    if "channels" in state:
        told.append(f"{state['channels']} channels open, {state['opening']} being opened, {state['lanes_waiting']} lanes waiting")
    if "connections" in state:
        told.append(f"{state['connections']} of {state['connections_allowed']} connections allowed now")
    return [destination["key"], *told]


def _limits(limits: Mapping[str, Any]) -> str:
    rate = limits["rate"]
    told = [
        f"{limits['connections']} connections",
        f"{limits['messages_per_connection']} messages each",
        f"{limits['recipients_per_message']} recipients a message",
        f"{rate['number']} messages in {_time(rate['seconds'])}" if rate else "no rate",
    ]
    return f"{', '.join(told)} (rule {limits['rule'] or 'none'})"


def _when(window: Mapping[str, Any]) -> str:
    if window["in"] is None:
        return str(window["why"])
    if window["in"]:
        return f"in {_time(window['in'])}: {window['why']}"
    return f"at once, {window['why']}" if window["why"] else "at once"


def _schedule(told: Told) -> str:
    delays = ", ".join(_time(delay) for delay in told["schedule"])
    return f"after {delays}; given up after {_time(told['lifetime'])}"


def _sender(domain: Mapping[str, Any]) -> str:
    keys = ", ".join(key["selector"] for key in domain["keys"])
    signed = f"signed by {domain['signed_by']} ({keys})" if keys else "not signed"
    path = f"return path at {domain['return_path']}" if domain["return_path"] else "return path as it came"
    return f"{domain['domain']}: {signed}; {path}"


def _time(seconds: float) -> str:
    for name, unit in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:.0f}{name}"
    return f"{seconds:.0f}s" if seconds >= 1 else f"{seconds:.2f}s"
