"""The catalog: the declared world as one frozen value."""
