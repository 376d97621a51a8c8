"""Recordings of a run: written, kept around events, read and replayed."""
