"""The first alignment: a hidden Markov model over each transcript, fitted by EM from many restarts."""
