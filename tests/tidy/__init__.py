"""The design's law as tests: docs/decisions and CONTRIBUTING say why each rule is there."""
