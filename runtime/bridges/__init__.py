"""Bridges carry the events of a publisher into other systems (docs/bridges.md)."""
