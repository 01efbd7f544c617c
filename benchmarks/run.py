"""Run the benchmarks and write the table: ``python -m benchmarks.run [part ...]``; without parts, all of them.

Only a whole run is written into docs/performance.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from . import core_costs, extraction, gradients, recording, steering_costs, torch_costs
from .report import Row, conditions, table, write

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
PARTS = {
    "slopes": torch_costs.slopes,
    "models": torch_costs.real_models,
    "recording": recording.recording,
    "not asked": recording.unasked,
    "gradients": gradients.costs,
    "gradients replayed": gradients.replayed,
    "rerun": steering_costs.rerun,
    "extraction": extraction.extraction,
    "graph": core_costs.after_the_run,
    "memory": core_costs.peak_memory,
    "import": core_costs.import_time,
    "files": core_costs.pictures_and_files,
}


def main(wanted: list[str]) -> None:
    """Run the named parts."""
    unknown = set(wanted) - set(PARTS)
    if unknown:
        sys.exit(f"No part is called {sorted(unknown)}; there are {list(PARTS)}.")
    rows: list[Row] = []
    for name in wanted or PARTS:
        with torch_costs.single_thread():
            for row in PARTS[name]():
                promised = f"  (promised {row.promised})" if row.promised else ""
                print(f"{row.what}: {row.measured}{promised}", flush=True)
                rows.append(row)
    if not wanted:
        write(PAGE, f"{conditions(1)}\n\n{table(rows)}")
        print(f"written to {PAGE.name}; this machine would give torch {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main(sys.argv[1:])
