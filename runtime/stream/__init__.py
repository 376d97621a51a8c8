"""From frames to decisions: frame clock, pyramid, ring of recent outputs, recogniser."""
