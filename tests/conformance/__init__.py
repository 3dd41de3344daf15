"""The shipped suites, run against every backend of this package."""
