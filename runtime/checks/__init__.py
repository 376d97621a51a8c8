"""Checks of a running or installed system: state drift, self-test of the engines, benchmark."""
