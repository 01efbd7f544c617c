"""Numbers as people read them: units change exactly where the rounded number would reach the next one."""

import pytest

from torchlens_core.show.quantities import bytes_text, count_text, duration_text, flops_text, macs_text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1 KB"),
        (259_584, "253.5 KB"),
        (2_655_744, "2.5 MB"),
        (1024**2 - 1, "1 MB"),
        (31_744, "31 KB"),
        (3 * 1024**3, "3 GB"),
        (2**60, "1024 PB"),
    ],
)
def test_bytes(size, text):
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1 K"),
        (1422, "1.4 K"),
        (999_949, "999.9 K"),
        (999_950, "1 M"),
        (2_469_696, "2.5 M"),
        (58_631_144, "58.6 M"),
        (175_000_000_000, "175 B"),
        (1.5e12, "1.5 T"),
    ],
)
def test_counts(count, text):
    assert count_text(count) == text


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (999.96, "1 µs"),
        (12_345, "12.3 µs"),
        (1_400_000, "1.4 ms"),
        (999_960_000, "1 s"),
        (59_900_000_000, "59.9 s"),
        (59_990_000_000, "1 min"),
        (90_000_000_000, "1.5 min"),
    ],
)
def test_durations(ns, text):
    assert duration_text(ns) == text


def test_flops_and_macs_name_what_they_count():
    assert flops_text(1_428_905_984) == "1.4 GFLOPs"
    assert flops_text(12) == "12 FLOPs"
    assert macs_text(714_188_480) == "714.2 MMACs"
