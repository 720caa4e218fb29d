#!/usr/bin/env python3
"""Reads a sealed file through the mount and its backing file directly, turn by turn, and prints the ratio of speeds.

    tests/bench/warm_read.py MOUNT/MODEL/int8/0.bin

The file must be complete (`qcache warm`). Every figure is the best of several turns, so that a busy machine shows less;
1.00 means that the mount is as fast as the file on disk.
"""

import mmap
import os
import random
import sys
import time

TURNS = 7
RANDOM_READS = 20_000


def sequential(path):
    buffer = bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return os.stat(path).st_size


def random_4k(path):
    pages = os.stat(path).st_size // 4096
    order = random.Random(1)
    buffer = [bytearray(4096)]
    fd = os.open(path, os.O_RDONLY)
    for _ in range(RANDOM_READS):
        os.preadv(fd, buffer, order.randrange(pages) * 4096)
    os.close(fd)
    return RANDOM_READS * 4096


def mapped(path):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        # find() touches every byte in C, so faults are what is timed and not Python.
        view.find(b"\x00 no tensor holds this text \x00")
        return len(view)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    through_mount = sys.argv[1]
    if os.getxattr(through_mount, "user.qcache.state") != b"sealed":
        sys.exit(f"{through_mount} is not complete: run 'qcache warm' first")
    backing = os.getxattr(through_mount, "user.qcache.backing").decode()
    for name, read in (("sequential", sequential), ("random 4 KiB", random_4k), ("mmap touch", mapped)):
        best = {through_mount: 0.0, backing: 0.0}
        for _ in range(TURNS):
            for path in best:
                begin = time.perf_counter()
                size = read(path)
                best[path] = max(best[path], size / (time.perf_counter() - begin) / 1e9)
        print(f"{name:14} mount {best[through_mount]:6.2f} GB/s   backing file {best[backing]:6.2f} GB/s   "
              f"ratio {best[through_mount] / best[backing]:.2f}")


if __name__ == "__main__":
    main()
