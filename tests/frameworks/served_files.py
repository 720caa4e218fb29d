#!/usr/bin/env python3
"""Mounts models with the real command and reads every dtype with the readers of both file formats.

  served_files.py QCACHE_COMMAND

A small random model in bf16 and one in fp32. For each model and dtype, on a file that is being made and on the complete one:
`0.bin` by torch.load with weights_only, with and without mmap; `0/model.safetensors` by safetensors.safe_open and by
numpy.memmap. Each reader must find exactly the tensors that docs/SCHEMES.md promises, with the bytes that quantizers.py expects
(the frameworks' own, or its formulas); so nothing a reader makes of a file depends on when it came. On the complete `0.bin`
also `unzip -t`, and the system's torch (Debian's 1.13.1, where it is installed: all dtypes without float8). The exit status is
1 where anything differs.
"""

import json
import os
import subprocess
import sys
import time

import numpy
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mounting import mounted, work_folder
from quantizers import CASTS, QUANTIZERS, raw, same

FLOAT8 = ("fp8", "qfloat8", "fp8-block", "nvfp4")
REST_IN_BF16 = ("nvfp4", "mxfp4")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj")
LOAD_WITH_SYSTEM_TORCH = """
import sys, torch
for path in sys.argv[1:]:
    print(torch.__version__, path, len(torch.load(path, weights_only=True)))
"""

failures = []


def check(ok, what):
    if not ok:
        failures.append(what)
        print("DIFFERS", what, flush=True)


def make_model(folder, dtype):
    """A llama-like model, with a zero row, denormals and an outlier in one of its weights."""
    random = torch.Generator().manual_seed(1)

    def weight(*shape):
        return (torch.randn(*shape, generator=random) * 0.02).to(dtype)

    tensors = {"model.embed_tokens.weight": weight(512, 256), "model.norm.weight": torch.ones(256, dtype=dtype)}
    for layer in range(2):
        name = f"model.layers.{layer}."
        for projection in PROJECTIONS[:4]:
            tensors[f"{name}self_attn.{projection}.weight"] = weight(256, 256)
        tensors[f"{name}mlp.gate_proj.weight"] = weight(768, 256)
        tensors[f"{name}mlp.down_proj.weight"] = weight(256, 768)
    odd = tensors["model.layers.0.self_attn.q_proj.weight"]
    odd[0] = 0
    odd[1] *= 1e-30
    odd[2, 3] = 9.0
    tensors["step"] = torch.tensor(7, dtype=torch.int64)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))


def expected_bytes(dtype, source):
    """All tensors of a file by name."""
    out = {}
    for name, tensor in source.items():
        module = name.removesuffix(".weight")
        if dtype not in CASTS and module.endswith(PROJECTIONS):
            out |= {f"{module}.{suffix}": data for suffix, data in QUANTIZERS[dtype](tensor).items()}
        elif tensor.is_floating_point():
            out[name] = raw(tensor.to(CASTS.get(dtype, torch.bfloat16 if dtype in REST_IN_BF16 else tensor.dtype)))
        else:
            out[name] = raw(tensor)
    return out


def by_torch(path, mapped):
    return {name: raw(tensor) for name, tensor in torch.load(path, weights_only=True, mmap=mapped).items()}


def by_safe_open(path):
    with safe_open(path, framework="pt") as file:
        return {name: raw(file.get_tensor(name)) for name in file.keys()}


def by_memmap(path):
    view = numpy.memmap(path, mode="r")
    data = 8 + int(view[:8].view("<u8")[0])
    header = json.loads(view[8:data].tobytes())
    return {name: view[data + tensor["data_offsets"][0]:data + tensor["data_offsets"][1]].tobytes()
            for name, tensor in header.items() if name != "__metadata__"}


READERS = {
    "torch.load": ("0.bin", lambda path: by_torch(path, mapped=False)),
    "torch.load with mmap": ("0.bin", lambda path: by_torch(path, mapped=True)),
    "safe_open": ("0/model.safetensors", by_safe_open),
    "numpy.memmap": ("0/model.safetensors", by_memmap),
}


def compare(what, found, expected):
    check(found.keys() == expected.keys(), f"{what}: tensors {sorted(found.keys() ^ expected.keys())[:5]}")
    for name in found.keys() & expected.keys():
        suffix = name[name.rindex("_proj.") + 6:] if "_proj." in name else name
        check(same(suffix, found[name], expected[name]), f"{what}: {name}")


def state(path):
    return os.getxattr(path, "user.qcache.state").decode()


def wait_until_sealed(path):
    for _ in range(1200):
        if state(path) == "sealed":
            return
        time.sleep(0.05)
    check(False, f"{path} is not sealed after a minute")


def check_dtype(folder, dtype, expected):
    for reader, (file, read) in READERS.items():
        path, what = folder / file, f"{folder} {reader}"
        if state(path) != "absent":
            os.remove(path)
        check(state(path) == "absent", f"{path} is {state(path)} after its removal")
        compare(f"{what} while filling", read(path), expected)
        wait_until_sealed(path)
        compare(f"{what} when sealed", read(path), expected)
    unzip = subprocess.run(["unzip", "-tqq", folder / "0.bin"], capture_output=True, text=True)
    check(unzip.returncode == 0, f"unzip -t {folder}/0.bin: {unzip.stdout}{unzip.stderr}")


def check_model(mount, name, source):
    check(set(os.listdir(mount / name)) == set(QUANTIZERS), f"{name} is listed in {sorted(os.listdir(mount / name))}")
    for dtype in QUANTIZERS:
        started = time.monotonic()
        expected = expected_bytes(dtype, source)
        check_dtype(mount / name / dtype, dtype, expected)
        print(f"{name} {dtype}: {len(expected)} tensors, {time.monotonic() - started:.1f} s", flush=True)
    probe = subprocess.run(["/usr/bin/python3", "-c", "import torch"], capture_output=True)
    if probe.returncode != 0:
        print("SKIPPED: the system's Python has no torch (package python3-torch)")
        return
    paths = [mount / name / dtype / "0.bin" for dtype in QUANTIZERS if dtype not in FLOAT8]
    old = subprocess.run(["/usr/bin/python3", "-c", LOAD_WITH_SYSTEM_TORCH, *paths], capture_output=True, text=True)
    check(old.returncode == 0, f"the system's torch: {old.stderr}")
    print(old.stdout, end="")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(2)
    command = sys.argv[1]
    models = {"small-bf16": torch.bfloat16, "small-fp32": torch.float32}
    with work_folder("files") as work:
        for name, dtype in models.items():
            make_model(work / "models" / name, dtype)
        with mounted(command, work, work / "models") as mount:
            for name in models:
                check_model(mount, name, load_file(work / "models" / name / "model.safetensors"))
    print(f"{len(failures)} differences")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
