"""Penstock's topics from other languages: real clients of Java and of Node."""
