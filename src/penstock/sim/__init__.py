"""The instruments that prove the promises: auditor, simulator, crash harness, power cuts."""
