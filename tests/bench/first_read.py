#!/usr/bin/env python3
"""What the first read of a quantized file costs, beside a copy of its source, and beside making it complete.

    tests/bench/first_read.py QCACHE_COMMAND MODEL_FOLDER WORK_FOLDER [--dtype int8] [--turns 11]

The cache directory and the copy lie in WORK_FOLDER: a disk, or a tmpfs. Turn by turn, with the source in the page cache, and memory
that the machine has ready:

  cat    of a never-quantized file `<model>/<dtype>/0/model.safetensors`
  cp     of the model's source, model.safetensors
  warm   `qcache warm` of the same file, never quantized: until it is sealed

Medians in seconds, and the medians of the ratios within a turn.
"""

import argparse
import mmap
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

READY_MEMORY = 4 << 30


def ready_memory():
    """Has the machine get as much memory as a turn needs, and gives it back."""
    mmap.mmap(-1, READY_MEMORY, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def timed(*command):
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def wait_until_hashed(path):
    for _ in range(600):
        if "user.qcache.sha256" in os.listxattr(path):
            return
        time.sleep(0.1)
    sys.exit(f"{path} is not sealed after a minute")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command")
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--dtype", default="int8")
    parser.add_argument("--turns", type=int, default=11)
    arguments = parser.parse_args()
    model, work = arguments.model.resolve(), arguments.work.resolve()
    source, copy, mount, cache = model / "model.safetensors", work / "copy", work / "mnt", work / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    mount.mkdir(parents=True, exist_ok=True)
    subprocess.run([arguments.command, "mount", "--cache-dir", cache, model.parent, mount], check=True)
    file = mount / model.name / arguments.dtype / "0" / "model.safetensors"
    ways = {"cat": ("cat", file), "cp": ("cp", source, copy), "warm": (arguments.command, "warm", file)}
    seconds = {way: [] for way in ways}
    try:
        for _ in range(arguments.turns):
            for way, command in ways.items():
                os.sync()
                source.read_bytes()
                ready_memory()
                seconds[way].append(timed(*command))
                if way == "cp":
                    copy.unlink()
                else:
                    wait_until_hashed(file)
                    file.unlink()  # drops what is cached
    finally:
        subprocess.run([arguments.command, "unmount", mount], check=True)
        shutil.rmtree(cache)
    print(", ".join(f"{way} {statistics.median(times):.3f} s" for way, times in seconds.items()))
    for way, other in (("cat", "cp"), ("warm", "cat")):
        print(f"{way} / {other} {statistics.median(a / b for a, b in zip(seconds[way], seconds[other])):.2f}")


if __name__ == "__main__":
    main()
