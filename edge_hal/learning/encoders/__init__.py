"""Training of the frame encoder."""
