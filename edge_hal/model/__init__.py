"""The pyramid in torch: causal student, two-sided teacher, frame encoder, latents. Never needed on a device."""
