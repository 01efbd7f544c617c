"""What a user holds: the Trace, and its Ops, Layers, Modules, Params and Buffers, which are views on it."""
