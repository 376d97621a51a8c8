"""The networks: offline teacher, causal student, their losses and the training loop."""
