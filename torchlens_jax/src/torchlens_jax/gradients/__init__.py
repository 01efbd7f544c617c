"""Gradients at the Ops of a run, in one compiled backward pass."""
