"""lettermta: a sending MTA on Twisted.

The folders name the way of a message: ``smtp`` reads it off the wire, ``submission`` decides whether it may be sent,
``spool`` makes it durable, ``delivery`` takes it to the recipient's MX, and ``events`` tells everyone who asked.
"""

__version__ = "0.1.0"
