"""The flows that ship: guests of the platform, each brings a ``catalog.toml`` of its own."""

SHIPPED = "penstock.flows.orders"  # what runs where no catalog is named
