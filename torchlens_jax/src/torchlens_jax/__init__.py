"""The JAX plugin of TorchLens."""

from .modes import Mode, mode

__all__ = ["Mode", "mode"]
