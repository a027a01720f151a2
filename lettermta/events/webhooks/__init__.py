"""Webhooks: a reader of the outbox that posts events to endpoints, from a process of its own.

``process`` is the daemon's end and ``sender`` the other one; a ``queue`` for each webhook makes the attempts that ``posting`` carries out,
signed by ``signing``, at the times of ``schedule``. What is to be told and what came of it is in
:class:`~lettermta.interfaces.IDeliveries`.
"""
