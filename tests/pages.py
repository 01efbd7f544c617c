"""Pages of the documentation as programs: their code runs as it stands, and prints what the page says it prints.

Of a page every block of one language (``python``; ``py`` for what needs another environment) runs, top to bottom, in
one namespace. A ``text`` block that follows one is what it prints; ``...`` in it stands for anything.
"""

import contextlib
import doctest
import io
import re
import sys
from pathlib import Path
from types import ModuleType

BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def run_page(text: str, folder: Path, language: str = "python") -> list[str]:
    """Run the blocks of a page, as the module ``page``; what is wrong with the outputs shown, in words."""
    blocks = list(BLOCK.finditer(text))
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(blocks), "a block is not closed, or has no language"
    module = sys.modules["page"] = ModuleType("page")
    file = folder / "page.py"
    file.write_text(code_of(text, language), encoding="utf-8")  # traces look up the source of what ran
    wrong: list[str] = []
    printed: str | None = None  # by the block before, where that was code
    for block in blocks:
        line = text.count("\n", 0, block.start("body"))
        if block["language"] == language:
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile("\n" * line + block["body"], str(file), "exec"), module.__dict__)
            printed = output.getvalue()
        else:
            if block["language"] == "text" and printed is not None and not as_shown(block["body"], printed):
                wrong.append(f"line {line}: the page shows\n{block['body']}\nand the code printed\n{printed}")
            printed = None
    return wrong


def code_of(text: str, language: str) -> str:
    """The code of a page, each line where it stands on the page."""
    lines = [""] * (text.count("\n") + 1)
    for block in BLOCK.finditer(text):
        if block["language"] == language:
            first = text.count("\n", 0, block.start("body"))
            code = block["body"].splitlines()
            lines[first : first + len(code)] = code
    return "\n".join(lines)


def as_shown(shown: str, printed: str) -> bool:
    """Whether what was printed is what the page shows."""
    wanted, got = (re.sub(r"[ \t]+$", "", text.strip("\n"), flags=re.MULTILINE) for text in (shown, printed))
    return doctest.OutputChecker().check_output(wanted, got, doctest.ELLIPSIS)
