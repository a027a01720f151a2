"""Makes ``twistd lettermta`` known to twistd."""

from twisted.application.service import ServiceMaker

lettermta = ServiceMaker("lettermta", "lettermta.service", "A sending MTA: submission, durable spool, delivery by MX, events.", "lettermta")
