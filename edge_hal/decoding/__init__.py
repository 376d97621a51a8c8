"""From posteriors to decisions: hysteresis, the semi-Markov filter, the procedure, the timeline. numpy only."""
