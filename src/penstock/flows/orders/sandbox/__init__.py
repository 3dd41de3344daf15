"""The outside world in small: a payment provider, a carrier and a catching mail server.

Each is a process of its own with a durable ledger and switches to fail. They share no code with
the order flow and know penstock only by HTTP and SMTP; ``docs/reference/sandboxes.md`` is their
manual and describes the ledger for an outside auditor.
"""
