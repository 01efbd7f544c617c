"""``make demo`` does its job, and does it again where its output is there already."""

import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_demo(folder: Path) -> str:
    done = subprocess.run([sys.executable, "examples/demo.py"], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_demo_runs_twice(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    for _ in range(2):
        printed = run_demo(tmp_path)
        assert "| features (Sequential)       | [1,256,6,6]   | 2.5 M  | yes   |" in printed
        assert "Params: 61,100,840 unique; trainable: 61,100,840\nOps: 22 total\nEdges: 23 total\n" in printed
        assert "Layer conv2d_3_7, operation 7/22:" in printed
        assert "Read back: all 24 outputs are equal to those saved." in printed
        output = tmp_path / "demo_output"
        assert (output / "alexnet.pdf").read_bytes().startswith(b"%PDF")
        assert "conv2d_3_7" in (output / "alexnet.svg").read_text()
        assert (output / "alexnet.tlspec" / "manifest.json").is_file()
