"""The trace whose values were written while the model ran: its file completed, its values read back from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..backend import Arrays
from ..plan import Keep

if TYPE_CHECKING:
    from ..records.trace import Trace
    from .streaming import Stream, ToDisk

_AS_IT_IS = Keep(transform=lambda value: value)


def open_stream(storage: ToDisk, arrays: Arrays) -> Stream:
    """The stream of a trace, whose arrays are named when the run is over."""
    from .streaming import Stream  # what it imports takes time, and few traces need it

    return Stream(storage, arrays, late_names=True)


def complete(stream: Stream, made: Trace) -> None:
    """Write what is still in memory, the records and the manifest; the values of the trace are those in the file."""
    from ..file.agreement import array_name
    from ..file.arrays_to_store import groups, value_labels
    from ..file.write import TraceJob
    from .streaming import StreamedValues

    for vid in made.values:  # what was decided about when the run was over
        if vid not in stream:
            stream.keep(vid, made.values[vid], _AS_IT_IS if made.values.is_transformed(vid) else Keep())
    labels = value_labels(made)
    kept = stream.kept(0)
    job = TraceJob(made, include_values=True, include_source=True, id=stream.id)
    if not stream.storage.retain_in_memory:
        made.values = StreamedValues(stream, 0, kept, made.values)
    job.take_over(
        stream.named({(0, vid): (array_name("value", vid, labels), vid) for vid in kept}),
        stream.shards,
        {vid: value for (_, vid), value in stream.numbers.items()},
        {vid: why for (_, vid), why in stream.not_stored.items()},
    )
    left = [[item for item in group if item.role != "value"] for group in groups(made, stream.storage.max_shard_bytes)]
    job.complete_folder(stream.folder, [group for group in left if group])
    job.warn()
