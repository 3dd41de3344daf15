"""Tests of the door and the page."""
