"""The registry of this process and its parts, in the order of the page: each is filled by the module that is about it."""

from lettermta.metrics.registry import Registry

REGISTRY = Registry()
"""The metrics of this process."""

EDGE = REGISTRY.part("Connections and sessions")
SUBMISSION = REGISTRY.part("Submission")
SPOOL = REGISTRY.part("Spool")
QUEUE = REGISTRY.part("Queue")
DELIVERY = REGISTRY.part("Delivery")
NAMES = REGISTRY.part("Names")
EVENTS = REGISTRY.part("Events")
WEBHOOKS = REGISTRY.part("Webhooks")
ACCOUNTS = REGISTRY.part("Accounts")
SUPPRESSION = REGISTRY.part("Suppression")
PROCESS = REGISTRY.part("Process")

TLS_VERSIONS = {"TLSv1.2": "TLS 1.2", "TLSv1.3": "TLS 1.3"}
"""The values of labels that tell a TLS version."""
