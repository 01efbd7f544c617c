"""What can be done with a trace after the run: prepare changes, and see what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InterventionError, ReplayError
from .trace_base import TraceBase

if TYPE_CHECKING:
    from ..interventions.when import When
    from ..plan import SaveSpec
    from ..steering.attached import Attached
    from ..steering.lineage import LastRun
    from .trace import Trace


class TraceSteering(TraceBase):
    """Forking, replaying and running again."""

    # -- where it comes from ---------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What it is called: the name that ``fork`` gave it, else the model's."""
        return str(self.program.facts.get("name", self.program.model))

    @property
    def last_run(self) -> LastRun | None:
        """How it was made from another trace; None where it was not."""
        from ..steering.lineage import last_run

        return last_run(self.program.facts)

    @property
    def parent(self) -> str | None:
        """Name of the trace that it was made from; None where ``tl.trace`` made it."""
        made = self.last_run
        return None if made is None else made.parent

    @property
    def diverged_at(self) -> str | None:
        """The event at which a replay left the recorded path, in words; None where it did not."""
        made = self.last_run
        return None if made is None else made.diverged_at

    @property
    def interventions(self) -> list[When]:
        """The changes that are prepared on it, in order."""
        return [when for attached in self.attached for when in attached.whens]

    # -- preparing changes -----------------------------------------------------------------------------------------

    def fork(self, name: str | None = None) -> Trace:
        """A cheap copy to prepare changes on, with those that are prepared here. Nothing is run, no value is copied."""
        from ..steering.forking import fork

        return fork(self._trace, name, self.attached)

    def set(self, site: Any, value: Any) -> Trace:
        """Prepare another value at a site, for ``replay`` and ``rerun``.

        Args:
            site: an Op, a label, a module's address, a selector, a part of what one selects (``.at[...]``), or several.
            value: an array of the shape, element type and device of what is there; a number, for all elements; or a
                function of the value that is there.

        Returns:
            This trace. Its own values stay what they are.

        Raises:
            InterventionError: the value does not fit, or the site never ran.
            LabelError: there is nothing of this name.
        """
        from ..steering.attached import setting

        self.attached.append(setting(self._trace, site, value))
        return self._trace

    def attach_hooks(self, site: Any, *actions: Any, prepend: bool = False) -> Attached:
        """Prepare actions at a site, in order, for ``replay`` and ``rerun``.

        Args:
            site: as of :meth:`set`.
            actions: ``tl.zero_ablate()``, ``tl.scale(0.5)`` ..., or functions of the value (and of the Op).
            prepend: before what is prepared already.

        Returns:
            A handle: ``handle.detach()`` takes them off.
        """
        from ..steering.attached import attach

        made = attach(self._trace, site, actions)
        self.attached.insert(0 if prepend else len(self.attached), made)
        return made

    def detach_hooks(self, site: Any = None, *, handle: Attached | None = None) -> None:
        """Take prepared changes off: those of a handle, or all that were prepared at a site.

        Raises:
            InterventionError: none is there.
        """
        from ..steering.places import targets

        if (site is None) == (handle is None):
            raise InterventionError("detach_hooks takes a site or a handle; clear_hooks() takes off everything.")
        if handle is not None:
            rest = [each for each in self.attached if each is not handle]
        else:
            meant = {*map(repr, targets(self._trace, site))}
            rest = [each for each in self.attached if not meant & {repr(when.target) for when in each.whens}]
        if len(rest) == len(self.attached):
            raise InterventionError(f"Nothing is attached at {site if handle is None else handle!r}.")
        self.attached[:] = rest

    def clear_hooks(self) -> None:
        """Take all prepared changes off."""
        self.attached.clear()

    # -- seeing what follows ---------------------------------------------------------------------------------------

    def replay(
        self,
        *,
        hooks: Any = None,
        save: SaveSpec | None = None,
        only_downstream: bool | None = None,
        differentiable: bool = False,
        strict: bool = False,
    ) -> Trace:
        """Run the recorded operations again, with the prepared changes and without the model's code.

        The trace has to be made with ``replay_ready=True``. What the changes do not reach is taken from the kept
        values, so that a replay costs what follows from the change. Random operations repeat what they drew.

        Args:
            hooks: more changes, after those that are prepared: ``{site: action}``, pairs, ``tl.when(...)`` or several.
            save: what to keep, as of ``tl.trace``; None keeps what this trace kept.
            only_downstream: False runs everything; None does so where nothing is changed.
            differentiable: keep a gradient tape, so that ``.out`` can be differentiated with respect to the parameters
                and to arrays that the changes put there. Everything is run.
            strict: raise where the model may take another path (see below), and do not warn.

        Returns:
            A new trace of the same structure; this one stays as it is. Durations are those of the recorded run.

        Raises:
            ReplayError: the trace does not hold what a replay takes, or an operation does not accept the new values.
            ReplayDiverged: with ``strict``: Python would read another value from an array (``if x > 0``,
                ``x.item()``), or a shape comes out otherwise. Without it that is a ReplayWarning, and
                ``trace.diverged_at`` says where.
            InterventionError: an action cannot be carried out.
        """
        from ..steering.attached import hooked
        from ..steering.replaying import replayed

        whens = (*self.interventions, *hooked(self._trace, hooks))
        made, _ = replayed(
            self._trace, whens, save=save, is_differentiable=differentiable, strict=strict,
            only_downstream=bool(whens) if only_downstream is None else only_downstream,
        )  # fmt: skip
        return made

    def replay_from(self, site: Any, value: Any = None, **options: Any) -> Trace:
        """Replay with another value at a site, beside the prepared changes: what follows from it is run again.

        Args:
            site: as of :meth:`set`.
            value: as of :meth:`set`; None runs what follows from the site again as it is.
            options: of :meth:`replay`.
        """
        return self.fork(self.name).set(site, _same if value is None else value).replay(**options)

    def rerun(
        self, model: Any, x: Any = None, kwargs: Mapping[str, Any] | None = None, *, seed: int | None = None
    ) -> Trace:
        """Run the model again with the prepared changes, and trace it with the same options.

        The generators start where they did in the recorded run, so that dropout repeats its mask. The model, the
        arguments and the generators are left as they were found.

        Args:
            model: the model.
            x: its arguments, as ``args`` of ``tl.trace``; None takes the recorded ones, which a trace made with
                ``replay_ready=True`` holds.
            kwargs: its keyword arguments.
            seed: let the generators start from this number instead.

        Raises:
            InterventionError: a change never acted, or its action cannot be carried out; or there are no inputs.
        """
        from ..steering.rerunning import rerun

        return rerun(self._trace, model, x, kwargs, self.interventions, seed)

    def do(
        self,
        site: Any,
        action: Any,
        model: Any = None,
        x: Any = None,
        *,
        engine: Literal["auto", "replay", "rerun"] = "auto",
    ) -> Trace:
        """Carry out an action at a site, and see what follows: by replay where the trace allows it, else by rerun.

        Args:
            site: as of :meth:`set`.
            action: as of :meth:`attach_hooks`.
            model, x: as of :meth:`rerun`; a replay needs neither.
            engine: ``'replay'``, ``'rerun'``, or ``'auto'``: replay, unless inputs are given or the trace cannot.
        """
        if engine not in ("auto", "replay", "rerun"):
            raise InterventionError(f"engine is 'auto', 'replay' or 'rerun'; got {engine!r}.")
        fork = self.fork(self.name)
        fork.attach_hooks(site, action)
        if engine == "replay" or (engine == "auto" and (model is None or (x is None and self._can_replay))):
            try:
                return fork.replay()
            except ReplayError:  # of a model that differentiates inside its forward, say
                if engine == "replay" or model is None:
                    raise
        if model is None:
            raise InterventionError("A rerun takes the model: trace.do(site, action, model, x).")
        return fork.rerun(model, x)

    @property
    def _can_replay(self) -> bool:
        return self.recorded is not None and self.recorded.params is not None


def _same(value: Any) -> Any:
    return value
