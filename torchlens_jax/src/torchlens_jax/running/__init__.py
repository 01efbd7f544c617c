"""A program run as it is compiled: what is kept, changed and cut in it, and the tables of the run."""
