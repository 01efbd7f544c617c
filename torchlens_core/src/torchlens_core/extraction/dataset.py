"""``tl.extract_dataset``: the activations of chosen layers for a whole dataset."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

from ..backend import Backend, Call
from ..errors import ExtractionError, OptionError, ResumeError
from .extract import dtype_name, finishing
from .fingerprint import device_of, fingerprint
from .folder import clean, locked, prepare
from .layers import LayerSpec, wanted
from .loading import LIMITS, Extraction, ShardFiles, open_extraction
from .manifest import check_same, new_manifest, read_manifest, write_manifest
from .readout import Readout
from .resuming import finished_shards
from .rows import Ragged, RowMaker
from .schema import LayerRecord, Manifest, Settings, StimulusId
from .sinks import FolderSink, MemorySink, Sink, completed
from .stimuli import Batch, Collate, Stimuli, Transform, backend_of


def extract_dataset(
    model: Any,
    stimuli: Any,
    layers: LayerSpec,
    *,
    batch_size: int | None = 32,
    device: Any = None,
    output_dir: str | os.PathLike[str] | None = None,
    transform: Transform | None = None,
    collate: Collate | None = None,
    pool: Callable[[Any], Any] | None = None,
    dtype: Any = None,
    ragged: Ragged = "error",
    stimulus_ids: Sequence[StimulusId] | None = None,
    resume: bool = True,
    progress: bool = True,
    shard_size: int | None = None,
    backend: str | None = None,
) -> Extraction:
    """The activations of some layers for a whole dataset, in memory or on disk.

    The model runs without a gradient tape and is left in the mode that it is in: put it into evaluation mode before.
    With ``output_dir=`` the memory taken does not grow with the dataset, and a process that is killed at any point,
    interrupted, or stopped by an error can be started again: it continues at the first stimulus that is not on disk,
    and what it writes is byte for byte what it would have written in one go, if the model gives the same twice.

    Args:
        model: what is called with each batch.
        stimuli: a dataset or list (anything with a length and numbers), an iterable, an array or a dict of arrays with
            the stimuli along axis 0, or a loader that gives batches. A stimulus is an array, a number, a dict of these
            (keyword arguments of the model), a text, or a tuple ``(input, target)``, of which the input is taken. When
            an extraction is continued they have to be the same in the same order, an iterable from its start.
        layers: as for :func:`extract`.
        batch_size: stimuli in one call of the model. None: ``stimuli`` gives whole batches, as a framework's own loader
            does, which is recognised.
        device: where batches are put; by default where the model's parameters are.
        output_dir: a folder to write into.
        transform: applied to each stimulus, to the input alone in ``(input, target)``.
        collate: makes the model's arguments of a list of stimuli, or of a whole batch of a loader: an array, a tuple of
            positional or a dict of keyword arguments.
        pool: applied to each activation, of shape (stimuli, ...); returns an array with one row for each stimulus.
        dtype: of what is kept, by name: ``'float16'``.
        ragged: ``'list'`` keeps an array for each stimulus, whose shapes may differ; else that is an error.
        stimulus_ids: a name (text or integer) for each stimulus, each once; they are stored, and compared when an
            extraction is continued.
        resume: continue what is in ``output_dir``; False makes it an error that something is there.
        progress: show a progress bar.
        shard_size: stimuli in one file; by default as many whole batches as make 64 MiB, at most 1,024 stimuli. What is
            not yet in a file is lost when the process is killed, and computed again.
        backend: name of the framework's backend; by default the model and the stimuli tell.

    Returns:
        A mapping from each name to one array of shape (stimuli, ...): in memory arrays of the framework, with
        ``output_dir`` what :func:`load_extraction` gives.

    Raises:
        SelectorError, LabelError: the model has no such layer.
        ExtractionError: stimuli do not make a batch, or a layer does not give one row of one shape for each stimulus.
        ResumeError: the folder holds the activations of another model, of other layers, or made with other options.
        SaveError: the folder cannot be written to, holds something else, or another process writes into it.

    What the model or the dataset raises is raised as it is; the folder can be continued after it.
    """
    asked = wanted(layers)
    if ragged not in ("error", "list"):
        raise OptionError(f"ragged= is 'error' or 'list'; got {ragged!r}.")
    if shard_size is not None and (not isinstance(shard_size, int) or shard_size < 1):
        raise OptionError(f"shard_size= is a number of stimuli, from 1; got {shard_size!r}.")
    chosen = backend_of(model, stimuli, backend)
    given = Stimuli(stimuli, chosen, batch_size, transform, collate)
    ids = None if stimulus_ids is None else _checked_ids(stimulus_ids, given.size)
    name = dtype_name(chosen.arrays, dtype)
    job = _Job(
        model=model,
        backend=chosen,
        stimuli=given,
        ids=ids,
        device=_device(chosen, model) if device is None else device,
        readout=Readout(chosen, asked, finishing(chosen.arrays, pool, name, None, "pool"), warns=True),
        rows=RowMaker(chosen.arrays, ragged),
        progress=progress,
    )
    if output_dir is None:
        return job.into_memory()
    settings = Settings(
        layers=tuple((each.key or "", each.text) for each in asked),
        backend=chosen.name,
        batch_size=given.batch_size,
        dtype=name,
        ragged=ragged,
        transform=_function_name(transform),
        collate=_function_name(collate),
        pool=_function_name(pool),
        shard_size=shard_size,
        num_stimuli=given.size,
    )
    folder = Path(output_dir)
    begun = prepare(folder, resume=resume)
    with locked(folder):
        clean(folder)
        return job.into_folder(folder, settings, begun)


@dataclass
class _Job:
    """One extraction."""

    model: Any
    backend: Backend
    stimuli: Stimuli
    ids: list[StimulusId] | None
    device: Any
    readout: Readout
    rows: RowMaker
    progress: bool

    def into_memory(self) -> Extraction:
        def sink(batch: Batch) -> Sink:
            return MemorySink(self.backend.arrays, self.rows.layers)

        made = self._run(0, sink)
        assert made is not None
        return made.finish()

    def into_folder(self, folder: Path, settings: Settings, begun: bool) -> Extraction:
        """Write what is missing."""
        model = fingerprint(self.backend, self.backend.discover(Call(self.model, (), {})))
        has_ids = self.ids is not None
        before: Manifest | None = None
        done = count = 0
        if begun:
            before = read_manifest(folder, LIMITS)
            check_same(folder, before, settings, model, has_ids=has_ids)
            if before.shards is not None:
                return open_extraction(ShardFiles(folder, before))
            count, done = finished_shards(folder, before, self.ids)
            if done and done == settings.num_stimuli:
                return completed(folder, before, count)

        def sink(batch: Batch) -> Sink:
            manifest = new_manifest(settings, model, self.rows.layers, has_ids=has_ids, in_batch=batch.size)
            if before is None:
                write_manifest(folder, manifest)
            elif _stored(manifest) != _stored(before):
                raise ResumeError(
                    f"{folder} holds {_shown(before)}, and the model now gives {_shown(manifest)}. Take another "
                    "output_dir, or delete that folder."
                )
            return FolderSink(folder, before or manifest, count)

        with _saying_where(folder):
            made = self._run(done, sink)
            if made is None and before is not None:
                return completed(folder, before, count)
            assert made is not None
            return made.finish()

    def _run(self, done: int, sink_for: Callable[[Batch], Sink]) -> Sink | None:
        """Run the model over what is left. The sink is made when the first activations are there; None: nothing is."""
        sink: Sink | None = None
        total = self.stimuli.size
        stop = done
        bar = tqdm(total=total, initial=done, unit="stimuli", desc="extracting", disable=not self.progress)
        with bar, self.backend.no_gradients():
            for batch in self.stimuli.batches(done):
                rows = self.rows.rows(self._read(batch), self.readout.places, batch)
                sink = sink or sink_for(batch)
                begin, stop = max(done, batch.first), batch.stop
                if self.ids is not None and stop > len(self.ids):
                    raise ExtractionError(f"There are more stimuli than the {len(self.ids)} stimulus_ids=.")
                left = {key: array[begin - batch.first :] for key, array in rows.items()}
                sink.add(left, None if self.ids is None else self.ids[begin:stop])
                bar.update(stop - begin)
        if not stop:
            raise ExtractionError("There are no stimuli.")
        if total is not None and stop != total:
            raise ExtractionError(f"The stimuli have a length of {total}, and {stop} came.")
        if self.ids is not None and stop != len(self.ids):
            raise ExtractionError(f"There are {len(self.ids)} stimulus_ids=, and {stop} stimuli came.")
        return sink

    def _read(self, batch: Batch) -> dict[str, Any]:
        args, kwargs = self._placed(batch.args), self._placed(batch.kwargs)
        try:
            return self.readout.read(Call(self.model, args, kwargs))
        except Exception as error:
            error.add_note(f"This was at {batch}.")
            raise

    def _placed(self, value: Any) -> Any:
        """With all arrays on the device."""
        if self.device is None:
            return value
        if self.backend.arrays.is_array(value):
            return self.backend.arrays.cast(value, None, self.device)
        if type(value) in (tuple, list):
            return type(value)(self._placed(item) for item in value)
        if type(value) is dict:
            return {key: self._placed(item) for key, item in value.items()}
        return value


@contextmanager
def _saying_where(folder: Path) -> Iterator[None]:
    """What is raised says that nothing on disk is lost."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"What is in {str(folder)!r} stays: the same call, made again, continues there.")
        raise


def _device(backend: Backend, model: Any) -> Any:
    """Where the model's state is, where all of it is in one place."""
    state = backend.discover(Call(model, (), {})).state
    devices = {device_of(backend, item.array) for item in state if item.trainable} - {None}
    return devices.pop() if len(devices) == 1 else None


def _checked_ids(given: Sequence[StimulusId], size: int | None) -> list[StimulusId]:
    ids = list(given)
    wrong = next((each for each in ids if not isinstance(each, str | int) or isinstance(each, bool)), None)
    if wrong is not None:
        raise OptionError(f"stimulus_ids= are texts or integers; got {wrong!r}.")
    if len(set(ids)) < len(ids):
        seen: set[StimulusId] = set()
        twice = next(each for each in ids if each in seen or seen.add(each))  # type: ignore[func-returns-value]
        raise OptionError(f"stimulus_ids= has {twice!r} twice.")
    if size is not None and len(ids) != size:
        raise OptionError(f"There are {size} stimuli, and stimulus_ids= has {len(ids)}.")
    return ids


def _function_name(function: Any) -> str | None:
    """What tells a function from another in the next process."""
    if function is None:
        return None
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _stored(manifest: Manifest) -> list[LayerRecord]:
    """The layers, without the labels that modules' outputs happened to have."""
    return [msgspec.structs.replace(layer, place="") for layer in manifest.layers]


def _shown(manifest: Manifest) -> str:
    return ", ".join(
        f"{each.key!r} ({each.what or each.place}) {list(each.shape or ())} {each.dtype}" for each in manifest.layers
    )
