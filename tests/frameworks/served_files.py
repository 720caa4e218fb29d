#!/usr/bin/env python3
"""Mounts models with the real command and reads every dtype as its framework would.

  served_files.py QCACHE_COMMAND [MODEL_FOLDER]

Without a folder it makes a small random model in bf16 and one in fp32. For each model and dtype: torch.load with
weights_only, with and without mmap, on a file that is being made and on the sealed one, in this Python and in the system's
(Debian's torch 1.13.1, where it is installed: all but float8); `unzip -t`; nf4 equals bitsandbytes and qfloat8 equals quanto
byte for byte; int8 and fp8 equal the formulas of docs/SCHEMES.md; casts equal torch's. The exit status is 1 where anything
differs.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import bitsandbytes.functional
import torch
from optimum.quanto import AbsmaxOptimizer, qfloat8, quantize_weight
from safetensors.torch import load_file, save_file

CASTS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
DTYPES = [*CASTS, "int8", "fp8", "nf4", "qfloat8"]
EPSILON = {torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10, torch.float32: 2.0**-23}
LOAD_WITH_SYSTEM_TORCH = """
import sys, torch
for path in sys.argv[1:]:
    print(torch.__version__, path, len(torch.load(path, weights_only=True)))
"""

failures = []


def check(ok, what):
    if not ok:
        failures.append(what)
        print("DIFFERS", what)


def make_model(folder, dtype):
    """A llama-like model, with a zero row, denormals and an outlier in one of its weights."""
    random = torch.Generator().manual_seed(1)

    def weight(*shape):
        return (torch.randn(*shape, generator=random) * 0.02).to(dtype)

    tensors = {"model.embed_tokens.weight": weight(512, 256), "model.norm.weight": torch.ones(256, dtype=dtype)}
    for layer in range(2):
        name = f"model.layers.{layer}."
        for projection in ("q_proj", "k_proj", "v_proj", "o_proj"):
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


def same_bytes(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(
        a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8))


def compare(dtype, source, served):
    quantized = 0
    for name, tensor in source.items():
        what = f"{dtype} {name}"
        if dtype in CASTS:
            expected = tensor.to(CASTS[dtype]) if tensor.is_floating_point() else tensor
            check(same_bytes(served[name], expected), what)
        elif f"{name}.quant_state.bitsandbytes__nf4" in served:
            codes, state = bitsandbytes.functional.quantize_4bit(
                tensor, blocksize=64, quant_type="nf4", compress_statistics=False)
            check(same_bytes(served[name], codes) and same_bytes(served[f"{name}.absmax"], state.absmax)
                  and same_bytes(served[f"{name}.quant_map"], state.code), what)
            quantized += 1
        elif f"{name}_scale" in served:
            limit, low, high = (127.5, -128, 127) if dtype == "int8" else (448.0, -448, 448)
            scale = (tensor.float().abs().amax(1, keepdim=True) / limit).to(tensor.dtype)
            scale[scale == 0] = EPSILON[tensor.dtype]
            codes = (tensor.float() / scale.float()).clamp(low, high)
            codes = codes.round().to(torch.int8) if dtype == "int8" else codes.to(torch.float8_e4m3fn)
            check(same_bytes(served[name], codes) and same_bytes(served[f"{name}_scale"], scale), what)
            quantized += 1
        elif f"{name}._data" in served:
            expected = quantize_weight(tensor, qfloat8, 0, scale=AbsmaxOptimizer()(tensor, qfloat8, axis=0))
            scale = expected._scale.reshape(-1)
            rows = scale != 0  # quanto makes NaN of the others
            check(same_bytes(served[f"{name}._data"][rows], expected._data[rows])
                  and same_bytes(served[f"{name}._scale"].reshape(-1)[rows], scale[rows]), what)
            quantized += 1
        else:
            check(same_bytes(served[name], tensor), what)
    check(dtype in CASTS or quantized > 0, f"{dtype}: nothing is quantized")
    return quantized


def wait_until_sealed(path):
    for _ in range(1200):
        if os.getxattr(path, "user.qcache.state") == b"sealed":
            return
        time.sleep(0.05)
    check(False, f"{path} is not sealed after a minute")


def check_model(mount, name, source):
    paths = []
    for dtype in DTYPES:
        path = f"{mount}/{name}/{dtype}/0.bin"
        filling = torch.load(path, weights_only=True, mmap=True)
        quantized = compare(dtype, source, filling)
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass
        del filling
        wait_until_sealed(path)
        for mapped in (True, False):
            compare(dtype, source, torch.load(path, weights_only=True, mmap=mapped))
        unzip = subprocess.run(["unzip", "-tqq", path], capture_output=True, text=True)
        check(unzip.returncode == 0, f"unzip -t {path}: {unzip.stdout}{unzip.stderr}")
        print(f"{name} {dtype}: {quantized} weights quantized, {os.stat(path).st_size} bytes")
        if dtype not in ("fp8", "qfloat8"):
            paths.append(path)
    probe = subprocess.run(["/usr/bin/python3", "-c", "import torch"], capture_output=True)
    if probe.returncode != 0:
        print("SKIPPED: the system's Python has no torch (package python3-torch)")
        return
    old = subprocess.run(["/usr/bin/python3", "-c", LOAD_WITH_SYSTEM_TORCH, *paths], capture_output=True, text=True)
    check(old.returncode == 0, f"the system's torch: {old.stderr}")
    print(old.stdout, end="")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    command = sys.argv[1]
    work = pathlib.Path(tempfile.mkdtemp(prefix="qcache-frameworks-"))
    mount = work / "mnt"
    mount.mkdir()
    if len(sys.argv) > 2:
        roots = [pathlib.Path(sys.argv[2]).resolve()]
        models = {roots[0].name: roots[0]}
    else:
        roots = [work / "models"]
        models = {"small-bf16": roots[0] / "small-bf16", "small-fp32": roots[0] / "small-fp32"}
        make_model(models["small-bf16"], torch.bfloat16)
        make_model(models["small-fp32"], torch.float32)
    subprocess.run([command, "mount", "--cache-dir", work / "cache", *roots, mount], check=True)
    try:
        for name, folder in models.items():
            check_model(mount, name, load_file(folder / "model.safetensors"))
    finally:
        subprocess.run([command, "unmount", mount], check=True)
        shutil.rmtree(work)
    print(f"{len(failures)} differences")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
