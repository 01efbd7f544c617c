"""What tests of TorchLens and of its plugins stand on: a toy framework with its backend, and programs made by hand."""
