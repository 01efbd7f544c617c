"""How large a trace file may be that is read. What a file claims is held against these before memory is asked for."""

from __future__ import annotations

from dataclasses import dataclass

MAX_HEADER_BYTES = 100_000_000
"""Of a safetensors file: the cap of that format, which no caller can raise."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on what is read. The caller can raise them: ``tl.load(path, limits=tl.Limits(max_records_bytes=2**31))``.

    Attributes:
        max_manifest_bytes: of ``manifest.json``.
        max_records_bytes: of ``records.json``.
        max_arrays: number of arrays.
        max_shards: number of files with arrays.
        max_total_bytes: of all arrays together.
        max_dims: dimensions of one array.
        max_depth: nesting of the JSON.
        max_text: of one string, in UTF-8 bytes.
    """

    max_manifest_bytes: int = 128 * 2**20
    max_records_bytes: int = 512 * 2**20
    max_arrays: int = 1_000_000
    max_shards: int = 10_000
    max_total_bytes: int = 2**44
    max_dims: int = 64
    max_depth: int = 64
    max_text: int = 2**20
