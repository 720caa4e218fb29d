"""What the folder tests found: a table of cosines, reasons, and failures."""

import importlib.metadata
import pathlib
import platform
import re
import traceback


class Findings:
    """Everything that went wrong, and the table to be printed at the end."""

    def __init__(self):
        self.failures = []
        self.cells = {}  # by dtype and column
        self.columns = []
        self.reasons = {}  # why a dtype is refused -> where
        self.notes = []

    def fail(self, what):
        self.failures.append(what)
        print("FAILED", what, flush=True)

    def check(self, ok, what):
        if not ok:
            self.fail(what)

    def attempt(self, what, action, *arguments):
        """Runs an action; whatever it raises is one failure, and the rest goes on."""
        try:
            return action(*arguments)
        except Exception:
            self.fail(f"{what}: {traceback.format_exc(limit=-3)}")
            return None

    def add(self, dtype, column, cosine):
        if column not in self.columns:
            self.columns.append(column)
        self.cells[dtype, column] = f"{cosine:.4f}"

    def refuse(self, dtype, column, reason):
        if column not in self.columns:
            self.columns.append(column)
        self.cells[dtype, column] = "-"
        self.reasons.setdefault(reason, set()).add(column)

    def print_table(self, dtypes):
        print("\n| dtype |", " | ".join(self.columns), "|")
        print("| --- |" + " --- |" * len(self.columns))
        for dtype in dtypes:
            print(f"| `{dtype}` |", " | ".join(self.cells.get((dtype, column), "failed") for column in self.columns), "|")
        print()
        for reason, columns in sorted(self.reasons.items()):
            print(f"- {', '.join(sorted(columns))}: {reason}")
        for note in self.notes:
            print(f"- {note}")


def versions():
    """Of the packages that requirements.txt names, and of the machine."""
    text = (pathlib.Path(__file__).parent / "requirements.txt").read_text()
    names = re.findall(r"^([\w-]+)==", text, re.MULTILINE)
    flags = pathlib.Path("/proc/cpuinfo").read_text().split() if pathlib.Path("/proc/cpuinfo").exists() else []
    widest = next((flag for flag in ("avx512_bf16", "avx512f", "avx2") if flag in flags), platform.machine())
    return ", ".join([*(f"{name} {importlib.metadata.version(name)}" for name in names),
                      f"Python {platform.python_version()}, Linux {platform.release()}, CPU with {widest}"])
