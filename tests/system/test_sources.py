"""Where mail leaves from, with a real daemon: a route's pool, names of its addresses, and a new one's plan over a restart."""

from __future__ import annotations

from tests.system.site import MX, Site, mail


def test_a_new_address_gets_its_part_of_a_routes_mail_and_a_restart_knows(site: Site) -> None:
    receiver = site.receiver(MX)
    daemon = site.daemon(
        "daemon",
        {
            "source old": {"addresses": "127.0.0.51", "hostname": "old.sender.test"},
            "source new": {"addresses": "127.0.0.52", "hostname": "new.sender.test", "warm_up": "1, 2, 4"},
            "pool main": {"sources": "old, new"},
        },
    )
    daemon.start()

    def names(tag: str, count: int) -> list[str]:
        for number in range(count):
            identifier = daemon.send(mail(f"Subject: {tag}"), f"u{number}@example.test")
            receiver.received(identifier)
        return [message["helo"] for message in receiver.messages(count, where=lambda one: f"Subject: {tag}".encode() in one["content"])]

    assert names("plain", 1) == ["mta.sender.test"], "a route without a pool leaves as ever"
    daemon.admin("route", "update", "--project", "demo", "outgoing", "--pool", "main")
    assert names("first", 4) == ["new.sender.test", *["old.sender.test"] * 3], "one on the first day, the rest overflows"
    daemon.stop()
    daemon.start()
    assert names("again", 2) == ["old.sender.test"] * 2
    daemon.admin("route", "update", "--project", "demo", "outgoing", "--pool", "default")
    assert names("back", 1) == ["mta.sender.test"]
    daemon.stop()
