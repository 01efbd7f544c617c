"""Gradients: those that a framework's own backward pass gave, and those that a replay gives."""
