"""What is wrong with a run, or would be: NaNs and infinities, and what a trace would cost."""
