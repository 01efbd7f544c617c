"""Changing values as a model runs: where (targets), what (actions), and plans of both."""
