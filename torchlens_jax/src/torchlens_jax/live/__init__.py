"""Models run operation by operation: where Python has to see values."""
