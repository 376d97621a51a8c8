"""Learning actions from transcripts: data, alignment, losses, training of teacher and student."""
