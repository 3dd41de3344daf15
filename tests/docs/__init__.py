"""Tests of what is written for people: it runs, it links, it is not stale."""
