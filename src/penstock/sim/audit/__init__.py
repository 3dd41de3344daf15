"""The auditor: judges from outside, by what was written down, and by nothing of ours.

It imports nothing of penstock, decodes by ``docs/formats.md`` alone, opens everything read-only
and knows three sources: what a client was told (the journal), what the logs and stores hold, and
the ledgers of the gateways. So it cannot share a mistake with the code it judges.
"""
