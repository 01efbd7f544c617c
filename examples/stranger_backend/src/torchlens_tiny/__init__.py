"""The TorchLens plugin of `tiny`, a framework of one page that stands beside it."""
