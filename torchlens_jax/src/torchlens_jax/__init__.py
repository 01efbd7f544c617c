"""The JAX plugin of TorchLens."""
