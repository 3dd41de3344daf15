"""The engine: worker and courier step, the intake decides requests, the crew runs them."""
