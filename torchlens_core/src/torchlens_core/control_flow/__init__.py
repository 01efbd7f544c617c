"""The conditionals of a run, found in the source: which arms ran, and which Ops and edges belong to them."""
