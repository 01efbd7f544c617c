"""The PyTorch plugin of TorchLens. Nothing here is imported by hand: ``tl.trace`` finds it by its entry point."""
