"""Steering after the run: changes prepared on a trace, and the ways to see what follows from them."""
