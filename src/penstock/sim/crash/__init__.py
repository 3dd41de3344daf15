"""The crash harness: the shipped processes, killed, stopped, drained and starved; then audited.

It starts ``penstock up`` over a home of its own, sends what the flow's crash workload tells, does
one harm in every cycle, and asks the auditor after each. It knows no flow.
"""
