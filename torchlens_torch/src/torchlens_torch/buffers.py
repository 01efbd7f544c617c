"""Buffers: non-trainable state, with a new version each time that it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from torchlens_core.program import Source

from .memory import Region, meta_of, overlap, place_of

if TYPE_CHECKING:
    from .capture import Recorder


class Buffers:
    """The buffers of the model that is being run, and which version each of them has reached."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._session = recorder.session
        self._latest: dict[int, Source] = {}  # by id of the array, which is kept in _arrays
        self._arrays: list[Tensor] = []
        self._places: dict[int, list[tuple[Tensor, Region]]] = {}  # by storage, of the first _num_placed arrays
        self._num_placed = 0

    def add(self, array: Tensor, source: Source) -> None:
        """A buffer as discovery found it, or its next version."""
        if id(array) not in self._latest:
            self._arrays.append(array)
        self._latest[id(array)] = source

    def __contains__(self, array: Tensor) -> bool:
        return id(array) in self._latest

    def after_write(self, target: Tensor, vid: int) -> list[tuple[int, int]]:
        """A write made an array ``vid``: the pairs of old and new value ids of the buffers in its memory."""
        source = self._latest.get(id(target))
        pairs = [] if source is None else [(vid, self._next_version(source, target, vid))]
        for buffer in self._in_memory_of(target):
            old = self._recorder.vid_of(buffer)
            new = self._recorder.assign(buffer)
            pairs += [(old, new), (new, self._next_version(self._latest[id(buffer)], buffer, new))]
        return pairs

    def rebind(self, address: str, module: str, alias: Tensor, origin: int) -> None:
        """A buffer's attribute was set to another array, of value id ``origin``, that an alias stands for."""
        before = self.latest_at(address) or Source("buffer", address, -1, version=0, module=module)
        if before.row < 0:
            before.row = len(self._session.rows)
        self._next_version(before, alias, origin)

    def latest_at(self, address: str) -> Source | None:
        """The latest version of the buffer at an address."""
        versions = (source for source in reversed(self._session.sources) if source.kind == "buffer")
        return next((source for source in versions if source.address == address), None)

    def _next_version(self, before: Source, array: Tensor, origin: int) -> int:
        """The next version of a buffer, whose value is that of the array ``origin``. Returns its value id."""
        session = self._session
        vid = session.source(
            "buffer", before.address, meta_of(array), version=before.version + 1, origin=origin,
            row=len(session.rows), module=before.module, aliases=before.aliases,
        )  # fmt: skip
        self.add(array, session.sources[-1])
        self._recorder.pin(array, vid)
        self._recorder.keep_copy(vid, array)
        return vid

    def _in_memory_of(self, target: Tensor) -> list[Tensor]:
        """The other buffers that a write to an array overwrites: it is a view of them, or their ``.data``."""
        for array in self._arrays[self._num_placed :]:
            storage, region = place_of(array)
            self._places.setdefault(storage, []).append((array, region))
        self._num_placed = len(self._arrays)
        storage, region = place_of(target)
        beside = self._places.get(storage, ())
        return [array for array, covered in beside if array is not target and overlap(covered, region)]
