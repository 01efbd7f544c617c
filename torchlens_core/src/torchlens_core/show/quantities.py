"""Numbers as people read them: ``253.5 KB``, ``58.6 M``, ``1.4 GFLOPs``, ``1.4 ms``; one decimal at most."""

from __future__ import annotations

from collections.abc import Sequence

_BYTES = ("B", "KB", "MB", "GB", "TB", "PB")
_THOUSANDS = ("", "K", "M", "G", "T", "P")
_COUNTS = ("", "K", "M", "B", "T")
_TIMES = ((1_000, "ns"), (1_000_000, "µs"), (1_000_000_000, "ms"), (60_000_000_000, "s"))


def bytes_text(size: float) -> str:
    """Memory, in units of 1024 bytes and its powers.

    >>> [bytes_text(size) for size in (0, 120, 31744, 259584)]
    ['0 B', '120 B', '31 KB', '253.5 KB']
    """
    number, unit = _scaled(size, 1024, _BYTES)
    return f"{number} {unit}"


def count_text(number: float) -> str:
    """How many there are of something.

    >>> [count_text(number) for number in (0, 999, 1400, 58_631_144, 7_000_000_000)]
    ['0', '999', '1.4 K', '58.6 M', '7 B']
    """
    return " ".join(filter(None, _scaled(number, 1000, _COUNTS)))


def counted(number: int, what: str) -> str:
    """How many things there are, with the word for them.

    >>> counted(1, "call"), counted(2, "call")
    ('1 call', '2 calls')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def flops_text(flops: float) -> str:
    """Floating-point operations.

    >>> [flops_text(flops) for flops in (0, 135_800, 1_428_905_984)]
    ['0 FLOPs', '135.8 KFLOPs', '1.4 GFLOPs']
    """
    number, unit = _scaled(flops, 1000, _THOUSANDS)
    return f"{number} {unit}FLOPs"


def macs_text(macs: float) -> str:
    """Multiply-accumulates.

    >>> macs_text(714_188_480)
    '714.2 MMACs'
    """
    number, unit = _scaled(macs, 1000, _THOUSANDS)
    return f"{number} {unit}MACs"


def duration_text(ns: float) -> str:
    """A time that is given in nanoseconds.

    >>> [duration_text(ns) for ns in (850, 12_000, 1_400_000, 2_500_000_000, 150_000_000_000)]
    ['850 ns', '12 µs', '1.4 ms', '2.5 s', '2.5 min']
    """
    below = 1
    for limit, unit in _TIMES:
        if round(ns / below, 1) < limit / below:
            return f"{_decimal(ns / below)} {unit}"
        below = limit
    return f"{_decimal(ns / below)} min"


def _scaled(number: float, base: int, units: Sequence[str]) -> tuple[str, str]:
    """The number in the largest unit in which it is at least 1, as it will be rounded."""
    power = 0
    while abs(round(number, 1)) >= base and power < len(units) - 1:
        number /= base
        power += 1
    return _decimal(number), units[power]


def _decimal(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
