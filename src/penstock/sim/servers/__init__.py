"""Real servers on this machine: Kafka brokers, PostgreSQL, and the faults that befall them.

Benchmarks, the crash harness and the tests start them; ``python -m penstock.sim.servers`` starts
one of each for a person. Every server dies with the process that started it.
"""
