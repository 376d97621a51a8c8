"""Baselines in the harness of edge-hal: its features, its budget, its decoder, its scores."""
