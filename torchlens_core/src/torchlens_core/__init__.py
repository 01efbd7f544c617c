"""The framework-free core of TorchLens: what ran as records, graph and labels, selectors, trace files, drawing."""
