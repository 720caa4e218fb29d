#!/usr/bin/env python3
"""Two builds of qcache side by side: what a user waits for, in interleaved pairs.

    tests/bench/compare_builds.py OLD/bin/qcache NEW/bin/qcache [--pairs 11] [--models 300] [--work FOLDER]

For each build a cache directory and a mount of its own over the same random models; A B, B A, A B, ... so that a machine that
drifts harms both alike. Printed are medians in milliseconds and the median of the ratios NEW / OLD, pair by pair: below 1.00 the new
build is faster.

  mount        until the mount can be used
  lookup       stat of a complete file by its path, which the kernel asks for name by name (mean of 500);
               this and the next two on one processor
  stranger     stat of a model that is not there (mean of 50)
  ls -l root   of a mount with many models
  first piece  64 KiB near the end of a file that was never made
  cold cat     all of a file that was never made, its source in the page cache
  warm read    all of a complete file from the page cache
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

BIG_TENSORS = 24
BIG_SHAPE = (4096, 2048)
PIECE = 64 << 10


def write_model(folder, shape, tensors, seed):
    """A random bf16 model in one safetensors file."""
    folder.mkdir(parents=True)
    size = shape[0] * shape[1] * 2
    header = {
        f"model.layers.{i}.mlp.up_proj.weight": {
            "dtype": "BF16", "shape": list(shape), "data_offsets": [i * size, (i + 1) * size]}
        for i in range(tensors)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = random.Random(seed)
    # Values near 1 with random mantissas: finite, and not all alike.
    block = bytearray(rng.randbytes(size))
    block[1::2] = bytes(0x3F if b & 1 else 0xBF for b in block[1::2])
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _ in range(tensors):
            file.write(block)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16"}))


class Build:
    """One build with its own cache directory; mounts and unmounts."""

    def __init__(self, program, work, name, models):
        self.program, self.models = program, models
        self.cache, self.mount_point, self.log = work / f"cache-{name}", work / f"mnt-{name}", work / f"log-{name}"
        self.mount_point.mkdir()
        self.process = None

    def mount(self):
        began = time.perf_counter()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self.program, "mount", "-f", "--cache-dir", self.cache, self.models, self.mount_point],
                stdout=log, stderr=log)
        while not (self.mount_point / ".qcache/status").exists():
            if self.process.poll() is not None:
                sys.exit(f"{self.program} did not mount: see {self.log}")
            time.sleep(0.0005)
        return time.perf_counter() - began

    def unmount(self):
        self.process.terminate()
        self.process.wait(30)

    def drop(self):
        shutil.rmtree(self.cache, ignore_errors=True)

    def file(self, model="big", dtype="int8"):
        return self.mount_point / model / dtype / "0.bin"

    def wait_until_sealed(self, file):
        os.setxattr(file, "user.qcache.warm", b"1")
        while os.getxattr(file, "user.qcache.state") != b"sealed":
            time.sleep(0.05)


def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def read_all(path):
    buffer = bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def read_piece(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.pread(descriptor, PIECE, os.fstat(descriptor).st_size * 9 // 10)
    finally:
        os.close(descriptor)


def mean_stat(path, times):
    def look():
        for _ in range(times):
            try:
                os.stat(path)
            except FileNotFoundError:
                pass
    return seconds(look) / times


@contextlib.contextmanager
def one_processor(daemon):
    """Keeps this program and the daemon on one processor. Else a small request takes 28 or 56 us, by whether the
    scheduler has put the threads that serve it beside their caller or on an idle processor, for seconds at a time."""
    before = os.sched_getaffinity(0)
    threads = [int(thread) for thread in os.listdir(f"/proc/{daemon}/task")]
    try:
        for thread in [0, *threads]:
            os.sched_setaffinity(thread, {min(before)})
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure_cold(build):
    """On an empty cache directory."""
    out = {}
    build.drop()
    out["mount"] = build.mount()
    out["first piece"] = seconds(lambda: read_piece(build.file(dtype="fp8")))
    out["cold cat"] = seconds(lambda: read_all(build.file()))
    build.unmount()
    return out


def measure_warm(build):
    """With a complete file."""
    out = {}
    build.mount()
    file = build.file()
    build.wait_until_sealed(file)
    read_all(file)
    out["warm read"] = min(seconds(lambda: read_all(file)) for _ in range(3))
    with one_processor(build.process.pid):
        out["lookup"] = mean_stat(file, 500)
        out["stranger"] = mean_stat(build.mount_point / "no-such-model", 50)
        out["ls -l root"] = seconds(lambda: [os.stat(entry.path) for entry in os.scandir(build.mount_point)])
    build.unmount()
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--work", default=tempfile.gettempdir())
    arguments = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="qcache-compare-", dir=arguments.work))
    builds = []
    try:
        models = work / "models"
        write_model(models / "big", BIG_SHAPE, BIG_TENSORS, 1)
        write_model(work / "small", (32, 32), 1, 2)
        for i in range(arguments.models):
            shutil.copytree(work / "small", models / f"small-{i}")
        time.sleep(0.1)  # so that no file is younger than its clock's tick
        builds = [Build(pathlib.Path(arguments.old).resolve(), work, "old", models),
                  Build(pathlib.Path(arguments.new).resolve(), work, "new", models)]
        for build in builds:  # not counted: everything into the page cache
            measure_cold(build)
        found = [{}, {}]
        for pair in range(arguments.pairs):
            for measure in (measure_cold, measure_warm):
                for which in (0, 1) if pair % 2 == 0 else (1, 0):
                    for name, value in measure(builds[which]).items():
                        found[which].setdefault(name, []).append(value)
        print(f"{arguments.pairs} pairs, {arguments.models + 1} models, {os.cpu_count()} cores, Linux {os.uname().release}")
        print(f"{'':12} {'old ms':>10} {'new ms':>10} {'new/old':>8}")
        for name, old in found[0].items():
            new = found[1][name]
            ratio = statistics.median(b / a for a, b in zip(old, new))
            print(f"{name:12} {statistics.median(old) * 1e3:10.3f} {statistics.median(new) * 1e3:10.3f} {ratio:8.2f}")
    finally:
        for build in builds:
            if build.process and build.process.poll() is None:
                build.unmount()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
