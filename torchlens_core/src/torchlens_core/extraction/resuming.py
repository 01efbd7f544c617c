"""What an interrupted extraction left behind, looked through before it is continued."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from ..errors import ExtractionWarning, ResumeError, TraceFileError
from .folder import drop, shard_name, shard_numbers
from .schema import Manifest, StimulusId
from .shards import Shard


def finished_shards(folder: Path, manifest: Manifest, ids: Sequence[StimulusId] | None) -> tuple[int, int]:
    """How many files are there and need not be made again, and how many stimuli they hold.

    The sizes of all are checked, the hashes of the last: a computer that lost its power may have written its name and
    not its bytes. A last file that is damaged, or not full although more stimuli follow, is deleted, to be made again.

    Raises:
        ResumeError: a file is missing although later ones are there, or the ids in them are not those given now.
        TraceFileError: a file before the last is damaged.
    """
    numbers = shard_numbers(folder)
    for position, number in enumerate(numbers):
        if number != position:
            raise ResumeError(
                f"{folder / shard_name(position)} is missing, and {shard_name(number)} is there. Put it back, or "
                "delete the files after it: the extraction then continues there."
            )
    count = done = 0
    for number in numbers:
        is_last = number == numbers[-1]
        try:
            shard = Shard(folder, number, manifest)
            if is_last:
                for problem in shard.problems():
                    raise problem
        except TraceFileError as error:
            if not is_last:
                raise
            warnings.warn(f"{error.where}: {error.what} It is deleted and made again.", ExtractionWarning, stacklevel=4)
            drop(folder, shard_name(number))
            break
        if shard.stimuli < manifest.shard_size and shard.first + shard.stimuli != manifest.settings.num_stimuli:
            if not is_last:
                raise ResumeError(f"{shard.where} holds {shard.stimuli} stimuli, and files follow. Delete them.")
            drop(folder, shard_name(number))
            break
        if ids is not None:
            _check_ids(shard, ids)
        count, done = count + 1, done + shard.stimuli
    return count, done


def _check_ids(shard: Shard, ids: Sequence[StimulusId]) -> None:
    now = ids[shard.first : shard.first + shard.stimuli]
    for position, (before, given) in enumerate(zip(shard.stimulus_ids or (), now, strict=False)):
        if before != given:
            raise ResumeError(
                f"Stimulus {shard.first + position} was {before!r} when the folder was written, and is {given!r} now: "
                "the stimuli are others, or in another order."
            )
    if len(now) < shard.stimuli:
        raise ResumeError(f"There are fewer stimulus_ids= than stimuli in {shard.where}.")
