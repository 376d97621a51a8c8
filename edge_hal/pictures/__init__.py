"""Pictures as a model sees them: `resize.py`, `moving.py` (resting parts become grey), `encoding.py` (those of video
files at the ticks, and their vectors)."""
