"""Figures out of decoded events: cycle times, durations of steps, deviations, shifts. Pure functions, numpy only."""
