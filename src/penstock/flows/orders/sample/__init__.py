"""Rows of a real export, to try penstock with; NOTICE says whose they are."""
