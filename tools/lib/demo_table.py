"""Reads every dtype of the first model in a mount twice, and its backing file once, and prints what that took.

Arguments: MOUNTPOINT SOURCE_FOLDER [DTYPE,DTYPE...]
"""

import os
import sys
import time

CHUNK_BYTES = 1 << 20
SEAL_TIMEOUT_S = 60.0
REPEATS = 3
RANKED = ("nf4", 16)  # the dtype and rank of the line with LoRA factors
COLORED = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if COLORED else ("", "", "")


def read_all(path):
    """Opens and reads the whole file; returns (bytes, seconds)."""
    buffer = bytearray(CHUNK_BYTES)
    total = 0
    started = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total, time.perf_counter() - started


def best_read(path):
    return min((read_all(path) for _ in range(REPEATS)), key=lambda result: result[1])


def attribute(path, name):
    return os.getxattr(path, "user.qcache." + name).decode()


def wait_until_sealed(path):
    deadline = time.monotonic() + SEAL_TIMEOUT_S
    while (state := attribute(path, "state")) != "sealed":
        if time.monotonic() > deadline:
            sys.exit(f"error: {path} was read in full but is still '{state}' after {SEAL_TIMEOUT_S:.0f} s")
        time.sleep(0.01)


def size_text(count):
    """As `ls -h` and qcache's commands write it: K, M and G of 1024."""
    for unit in ("", "K", "M"):
        if count < 1024:
            break
        count /= 1024
    else:
        unit = "G"
    return f"{count:.1f}{unit}" if unit and count < 9.95 else f"{count:.0f}{unit}"


def timing_text(count, seconds):
    return f"{seconds * 1000:>8.1f} ms {size_text(count / seconds) + '/s':>10}"


def first_model(mountpoint):
    """The first folder that holds dtypes, and the dtypes."""
    for folder, folders, _ in os.walk(mountpoint):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        dtypes = [name for name in folders if os.path.isfile(os.path.join(folder, name, "0.bin"))]
        if dtypes:
            return folder, dtypes
    sys.exit(f"error: {mountpoint} shows no model; a model folder holds *.safetensors, or *.bin, *.pt, *.pth from torch")


def warm(source):
    """Brings the source into the page cache, so that no row pays for the disk."""
    total = 0
    for folder, _, names in os.walk(source):
        total += sum(read_all(os.path.join(folder, name))[0] for name in names)
    return total


def main():
    mountpoint, source = sys.argv[1:3]
    model, dtypes = first_model(mountpoint)
    if len(sys.argv) > 3 and sys.argv[3]:
        wanted = sys.argv[3].split(",")
        unknown = [name for name in wanted if name not in dtypes]
        if unknown:
            sys.exit(f"error: no dtype '{unknown[0]}' for this model; there are {', '.join(dtypes)}")
        dtypes = wanted
    source_bytes = warm(source)
    files = [(dtype, os.path.join(model, dtype, "0.bin")) for dtype in dtypes]
    dtype, rank = RANKED
    ranked = os.path.join(model, dtype, f"{rank}.bin")
    if dtype in dtypes and os.path.exists(ranked):
        files.append((f"{dtype}, rank {rank}", ranked))
    stats = [os.stat(path) for _, path in files]

    print(f"{BOLD}{os.path.basename(model)}{PLAIN}: {size_text(source_bytes)} of source, shown as {len(files)} "
          f"quantized files of {size_text(sum(s.st_size for s in stats))} together,")
    print(f"which occupy {size_text(sum(s.st_blocks for s in stats) * 512)} of disk so far: "
          "nothing is quantized before somebody reads it.\n")
    print(f"{BOLD}{'dtype':<12} {'size':>9}   {'1 first read':>22}   {'2 second read':>22}   "
          f"{'3 backing file':>22}{PLAIN}")
    for (label, path), stat in zip(files, stats):
        count, first_s = read_all(path)
        if count != stat.st_size:
            sys.exit(f"error: {path} gave {count} bytes, but its size is {stat.st_size}")
        wait_until_sealed(path)
        second = best_read(path)
        native = best_read(attribute(path, "backing"))
        print(f"{label:<12} {size_text(count):>9}   {timing_text(count, first_s):>22}   "
              f"{timing_text(*second):>22}   {timing_text(*native):>22}", flush=True)
    print(f"""{DIM}
1 first read: quantized while it was being read, tile by tile, from a source in the page cache.
2 second read: the sealed result, served through the mount; best of {REPEATS}.
3 backing file: the same bytes read from the cache folder, past the mount; best of {REPEATS}.
A rank above 0 also holds LoRA factors of what quantizing lost, computed while it was read.{PLAIN}""")


main()
