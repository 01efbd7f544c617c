"""What a file that is not a trace file looks like, for the message that refuses it."""

from __future__ import annotations

from typing import Final

OLDER: Final = (
    "a trace of TorchLens 2.x. Its metadata is a pickle, and reading a pickle can run any code, so it is never read. "
    "Trace the model again, or read it with the version that wrote it and only if you trust where it came from"
)

_BEGINNINGS: Final = (
    (b"PK\x03\x04", "a zip archive (such as a .pt checkpoint of PyTorch, an .npz, a .keras file)"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x93NUMPY", "a numpy array (.npy)"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"GGUF", "a GGUF model"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a PNG picture"),
    (b"<svg", "an SVG picture"),
    (b"<", "an HTML or XML page"),
    (b"{", "a JSON text; of a trace in a folder, give the folder"),
)


def looks_like(beginning: bytes) -> str:
    """A few words for a file that begins like this."""
    if not beginning:
        return "an empty file"
    if beginning[0] == 0x80 and beginning[1:2] and beginning[1] <= 5:
        return "a pickle, which is never read: reading one can run any code"
    if beginning[0] == 0x08 and any(word in beginning for word in (b"pytorch", b"onnx", b"keras", b"tf2onnx", b"jax")):
        return "an ONNX model"
    text = beginning.lstrip()
    found = next((what for magic, what in _BEGINNINGS if text.startswith(magic)), None)
    return found or "nothing that is known here"
