"""Runs clang-tidy in parallel and remembers what was clean.

Arguments: COMPILE_COMMANDS STATE_FOLDER JOBS FILE...
A file is clean until its text after preprocessing, its compile command, a .clang-tidy or clang-tidy itself changes.
Headers are checked through the sources that include them, so a changed header brings all of those back.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import shlex
import subprocess
import sys


def rules(root):
    """The text of everything besides a source that decides what clang-tidy says."""
    version = subprocess.run(["clang-tidy", "--version"], capture_output=True, check=True).stdout
    configs = [root / ".clang-tidy", *sorted((root / "tests").rglob(".clang-tidy"))]
    return version + b"".join(config.read_bytes() for config in configs)


def preprocessed(entry):
    """The source with its headers and comments (NOLINT is one), or None where the compiler refuses it."""
    arguments = shlex.split(entry["command"])
    if os.path.basename(arguments[0]) == "ccache":
        del arguments[0]
    arguments[arguments.index("-c")] = "-E"
    del arguments[arguments.index("-o"):arguments.index("-o") + 2]
    result = subprocess.run([*arguments, "-CC"], cwd=entry["directory"], capture_output=True, check=False)
    return result.stdout if result.returncode == 0 else None


def check(entry, database, state, fixed):
    """Returns what clang-tidy found, or None where the file is clean."""
    text = preprocessed(entry)
    stamp = None
    if text is not None:
        stamp = state / hashlib.sha256(fixed + entry["command"].encode() + text).hexdigest()
        if stamp.exists():
            return None
    result = subprocess.run(["clang-tidy", "--quiet", "-p", str(database.parent), entry["file"]],
                            capture_output=True, text=True, check=False)
    if result.returncode < 0:
        return f"{entry['file']}: not checked: clang-tidy was ended by signal {-result.returncode}"
    if result.returncode != 0:
        return result.stdout + (result.stderr if not result.stdout else "")
    if stamp is not None:
        stamp.touch()
    return None


def main():
    database, state, jobs = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
    wanted = {os.path.realpath(name) for name in sys.argv[4:]}
    state.mkdir(parents=True, exist_ok=True)
    fixed = rules(pathlib.Path(__file__).resolve().parent.parent.parent)
    # A source that two targets compile is checked once.
    entries = list({entry["file"]: entry for entry in json.loads(database.read_text())
                    if os.path.realpath(entry["file"]) in wanted}.values())
    print(f"==> clang-tidy: {len(entries)} files, {jobs} at once", flush=True)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for findings in pool.map(lambda entry: check(entry, database, state, fixed), entries):
            if findings is not None:
                failed += 1
                print(findings, flush=True)
    if failed:
        sys.exit(f"clang-tidy has findings in {failed} of {len(entries)} files")


main()
