"""The records of a trace file, typed: what ``manifest.json`` and ``records.json`` hold, field by field.

Unknown fields, missing fields and wrong types are refused by these types. What they cannot say (that one record agrees
with another) is said by :mod:`torchlens_core.file.rules`. A field at its default is left out of the file.

Records refer to each other by position. *Values* are arrays at a moment: each array that was seen has one, and each
write to it makes another. *Calls* are the operations that ran; *ops* are what a user sees: inputs, outputs of calls,
buffers, outputs of the model.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, field

FORMAT: Final = "torchlens trace"
RECORDING_FORMAT: Final = "torchlens recording"  # a folder of the same kind, with the values of chosen sites alone
VERSION = 1
INTERVENTIONS = "interventions"
GRADIENTS = "gradients"
FEATURES: frozenset[str] = frozenset({INTERVENTIONS, GRADIENTS})
"""Features that a file may require of its reader, beyond this version of the format.

``interventions``: values were changed as the model ran, and the records say which. ``gradients``: there are arrays that
are no values, but gradients with respect to them.
"""

Natural = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Reference = Annotated[int, Meta(ge=-1)]  # a position, -1 for none
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Identifier = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
Tagged = Any  # a Python value with tags: see torchlens_core.file.arguments


class Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all records."""


# -- manifest.json -----------------------------------------------------------------------------------------------------


class Producer(Wire, frozen=True, kw_only=True):
    """What wrote the file."""

    name: str
    version: str


class FrameworkRecord(Wire, frozen=True, kw_only=True):
    """What ran the model."""

    name: str  # of the backend
    version: str | None = None  # of the framework


class Counts(Wire, frozen=True, kw_only=True):
    """How many there are of each."""

    ops: Natural
    calls: Natural
    layers: Natural
    values: Natural
    modules: Natural
    params: Natural
    buffers: Natural
    arrays: Natural
    array_bytes: Natural
    not_replayable: Natural


class Part(Wire, frozen=True, kw_only=True):
    """Size and hash of ``records.json``."""

    bytes: Natural
    sha256: Digest


class Shard(Wire, frozen=True, kw_only=True):
    """One file with arrays, or the arrays of the single file."""

    arrays: Natural
    bytes: Natural  # of the arrays, the safetensors header not counted


# kept at an op; given to the run from outside, kept for replay; what a value was before an intervention; the gradient
# of a loss with respect to a value
Role = Literal["value", "constant", "clean", "gradient"]
Fidelity = Literal["own", "converted", "transformed"]


class ArrayRecord(Wire, frozen=True, kw_only=True):
    """One array: where its bytes are and what they mean."""

    name: str  # in the safetensors file: the label of the op that made it, 'value.7' or 'constant.7' where none did
    role: Role
    value: Natural
    dtype: str  # logical, as numpy or ml_dtypes calls it
    storage: str  # as safetensors calls it
    shape: tuple[Natural, ...]  # logical
    bytes: Natural
    shard: Natural
    sha256: Digest
    fidelity: Fidelity = (
        "own"  # converted: the framework's dtype has no counterpart; transformed: by activation_transform
    )
    bwd: Natural = 0  # of a gradient: number of the backward pass, from 1


class NotStored(Wire, frozen=True, kw_only=True):
    """A kept value that is not in the file."""

    name: str
    value: Natural
    why: str


class Manifest(Wire, frozen=True, kw_only=True):
    """What the file is, and where its bytes are."""

    format: Literal["torchlens trace", "torchlens recording"]
    version: Positive
    id: Identifier
    requires: tuple[str, ...] = ()
    producer: Producer
    model: str
    backend: FrameworkRecord
    started_at: float | None = None  # seconds since 1970, UTC
    left_out: tuple[str, ...] = ()  # what the trace held and the file does not: 'rng', 'values', 'source'
    counts: Counts
    records: Part
    shards: tuple[Shard, ...]
    arrays: tuple[ArrayRecord, ...]
    not_stored: tuple[NotStored, ...] = ()


# -- records.json: what a user sees ------------------------------------------------------------------------------------


class OpRecord(Wire, frozen=True, kw_only=True):
    """One op. All but ``layer`` follows from the other records, and is checked against them."""

    label: str
    kind: Literal["input", "buffer", "source", "call", "output"]
    type: str
    func: str
    layer: Natural  # layers are numbered in the order of their first ops
    pass_: Positive = field(name="pass")
    of: Natural  # position among calls, sources or outputs
    output_index: Natural = 0
    value: Natural
    parents: tuple[str, ...] = ()  # one for each argument that is an op, then those that wrote to the memory it reads
    module: str | None = None  # label of the innermost module call
    shape: tuple[Natural, ...]
    dtype: str
    params: tuple[str, ...] = ()  # addresses
    flops: Natural | None = None
    macs: Natural | None = None
    is_orphan: bool = False


# -- records.json: what ran --------------------------------------------------------------------------------------------


class FuncRecord(Wire, frozen=True, kw_only=True):
    """One function of the framework."""

    name: str
    type: str
    path: str | None = None
    random: bool = False
    undefined: bool = False
    output_names: tuple[str, ...] = ()


class CallRecord(Wire, frozen=True, kw_only=True):
    """One operation that ran."""

    func: Natural
    args: tuple[Tagged, ...] = ()
    kwargs: dict[str, Tagged] = {}
    settings: dict[str, Tagged] = {}  # arguments by name, those at their default left out
    ins: tuple[Natural, ...] = ()  # values, in the order of the arrays in args and kwargs
    outs: Any  # a value, null, or a list of these in the shape of what the call returned
    scope: Natural
    site: Reference = -1
    start_ns: int = 0  # since the model was called
    end_ns: int = 0
    ambient: dict[str, Tagged] | None = None
    writes: tuple[tuple[Natural, Natural], ...] = ()  # (value before, value after) of each array it overwrote
    deps: tuple[tuple[Natural, Natural], ...] = ()  # (argument, call): an alias of the argument was last written by
    kernels: tuple[str, ...] = ()
    flops: Natural | None = None
    macs: Natural | None = None
    replayable: bool = True


class ScopeRecord(Wire, frozen=True, kw_only=True):
    """One call of a module, or a region."""

    kind: Literal["module", "call", "region"]
    address: str
    cls: str
    parent: Reference = -1
    site: Reference = -1
    call_index: Positive
    first_call: Natural = 0
    last_call: Natural = 0  # exclusive
    ins: tuple[Natural, ...] = ()
    outs: Any = None
    start_ns: int = 0
    end_ns: int = 0


class SourceRecord(Wire, frozen=True, kw_only=True):
    """An array that no call made."""

    kind: Literal["input", "param", "buffer", "const", "unknown"]
    address: str
    value: Natural
    aliases: tuple[str, ...] = ()
    trainable: bool = False
    version: Positive = 1
    origin: Reference = -1  # the value that it is the new version of
    call: Reference = 0  # number of calls that had run when it was first used; -1: never
    module: str | None = None


class ValueRecord(Wire, frozen=True, kw_only=True):
    """Shape, type and place of one value."""

    shape: tuple[Natural, ...]
    dtype: str
    device: str
    grad_fn: str | None = None
    batch_dims: tuple[Natural, ...] = ()


class ModuleRecord(Wire, frozen=True, kw_only=True):
    """One module of the model, called or not."""

    address: str
    cls: str
    qualname: str = ""
    aliases: tuple[str, ...] = ()
    training: bool | None = None
    facts: Reference = -1  # position among the tables of facts


class OutputRecord(Wire, frozen=True, kw_only=True):
    """One array that the model returned."""

    path: str
    value: Natural


class ChangeRecord(Wire, frozen=True, kw_only=True):
    """An array that interventions put in the place of another, or the gradient at an array that they change."""

    call: Natural  # number of calls that had run
    old: Natural  # value
    new: Natural  # the value read from there on; ``old`` where nothing had read it
    what: tuple[str, ...]  # the interventions in words, in order
    of: Literal["value", "gradient"] = "value"


class EventRecord(Wire, frozen=True, kw_only=True):
    """An array that was read as a Python value."""

    kind: str
    of: Reference  # value
    value: Tagged
    scope: Natural
    site: Reference = -1
    call: Natural  # number of calls that had run


class NumberRecord(Wire, frozen=True, kw_only=True):
    """What a transform made of a value, where that is no array."""

    value: Natural
    number: Tagged


# -- records.json: gradients -------------------------------------------------------------------------------------------

GradientMetas = tuple[tuple[tuple[Natural, ...], str] | None, ...]  # shape and dtype of each


class GradFnRecord(Wire, frozen=True, kw_only=True):
    """One function of the framework's gradient graph."""

    name: str  # of its class
    type: str
    custom: bool = False
    values: tuple[Natural, ...] = ()  # of the ops that it is the derivative of
    pairing: Literal["paired", "inferred", ""] = ""
    leaf: Reference = -1  # value of the parameter or input at which gradients are accumulated
    next: tuple[Natural, ...] = ()  # positions of those that take its gradients
    order: Positive = 1
    origin: Natural = 0  # number of the backward pass that made it; 0: the forward run


class GradFnCallRecord(Wire, frozen=True, kw_only=True):
    """One call of such a function."""

    grad_fn: Natural
    grad_outputs: GradientMetas = ()
    grad_inputs: GradientMetas = ()
    duration_ns: Natural | None = None


class BackwardPassRecord(Wire, frozen=True, kw_only=True):
    """One backward pass; passes are numbered from 1 as they stand."""

    loss: str = ""
    order: Positive = 1
    recorded: bool = False
    duration_ns: Natural | None = None
    grad_fns: tuple[Natural, ...] = ()
    calls: tuple[GradFnCallRecord, ...] = ()


class GradientsRecord(Wire, frozen=True, kw_only=True):
    """What was asked for, and what ran."""

    watched: tuple[Natural, ...] = ()  # values whose gradients were to be kept
    passes: tuple[BackwardPassRecord, ...] = ()
    grad_fns: tuple[GradFnRecord, ...] = ()


# -- records.json: where in the source ---------------------------------------------------------------------------------


class FileRecord(Wire, frozen=True, kw_only=True):
    """A source file: a relative name, and the lines around what ran."""

    name: str
    lines: tuple[tuple[Positive, str], ...] = ()


class FrameRecord(Wire, frozen=True, kw_only=True):
    """A place in a source file."""

    file: Natural
    line: Reference
    col: Reference = -1
    end_line: Reference = -1
    end_col: Reference = -1
    function: str
    first_line: Reference = -1


SpanRecord = tuple[int, int, int, int]  # line, column, end line, end column


class PredicateRecord(Wire, frozen=True, kw_only=True):
    """An array that was asked for its truth value."""

    event: Natural  # number among the events whose value is true or false
    op: Reference
    value: bool
    test: Natural


class ExecutionRecord(Wire, frozen=True, kw_only=True):
    """One time that a conditional ran."""

    scope: Natural
    call: Natural
    value: bool | None = None
    arm: str | None = None
    predicates: tuple[PredicateRecord, ...]
    ops: tuple[Natural, ...] = ()


class ConditionalRecord(Wire, frozen=True, kw_only=True):
    """One conditional in the source."""

    kind: Literal["if_chain", "ifexp", "while", "assert", "bool"]
    file: str = ""
    function: str = ""
    function_span: SpanRecord | None = None
    statement_span: SpanRecord | None = None
    test_span: SpanRecord | None = None
    test_spans: tuple[tuple[str, SpanRecord], ...] = ()
    branch_spans: tuple[tuple[str, SpanRecord], ...] = ()
    parent: Natural | None = None
    parent_arm: str | None = None
    executions: tuple[ExecutionRecord, ...]


class ControlFlowRecord(Wire, frozen=True, kw_only=True):
    """Conditionals, and the ops and edges that belong to them."""

    conditionals: tuple[ConditionalRecord, ...] = ()
    branch_stacks: tuple[tuple[Natural, tuple[tuple[Natural, str], ...]], ...] = ()  # (op, ((conditional, arm), ...))
    branch_edges: tuple[tuple[Natural, Natural, tuple[Natural, ...]], ...] = ()  # (parent, child, conditionals)
    arm_entry_edges: tuple[
        tuple[Natural, str, tuple[tuple[Natural, Natural], ...]], ...
    ] = ()  # (conditional, arm, edges)


class Records(Wire, frozen=True, kw_only=True):
    """Everything but the arrays."""

    id: Identifier
    model: str
    backend: str
    facts: dict[str, Tagged] = {}
    keep_orphans: bool = False
    ops: tuple[OpRecord, ...]
    calls: tuple[CallRecord, ...]
    funcs: tuple[FuncRecord, ...]
    scopes: tuple[ScopeRecord, ...]
    sources: tuple[SourceRecord, ...]
    values: tuple[ValueRecord, ...]
    modules: tuple[ModuleRecord, ...]
    module_facts: tuple[dict[str, Tagged], ...] = ()  # signatures, docstrings, attributes ..., each table once
    outputs: tuple[OutputRecord, ...]
    events: tuple[EventRecord, ...] = ()
    changes: tuple[ChangeRecord, ...] = ()
    numbers: tuple[NumberRecord, ...] = ()
    gradients: GradientsRecord | None = None  # None where none were asked for
    texts: tuple[str, ...] = ()  # long texts of facts, each once
    files: tuple[FileRecord, ...] = ()
    frames: tuple[FrameRecord, ...] = ()
    sites: tuple[tuple[Natural, ...], ...] = ()  # frames, innermost first, up to the enclosing scope
    control_flow: ControlFlowRecord = ControlFlowRecord()
