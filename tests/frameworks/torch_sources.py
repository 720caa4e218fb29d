#!/usr/bin/env python3
"""Mounts models that real torch saved as checkpoints, and compares what is served with what torch loads from them.

  torch_sources.py QCACHE_COMMAND

Saved by this Python's torch and, where it has one, by the system's (Debian's 1.13.1): zip and legacy files, plain and
ordered dictionaries, wrapped ones, shards with an index; with parameters, tied weights, views of every kind, empty tensors
and scalars, in every dtype that the format has. For each: bf16 and fp32 hold every key and torch's own cast of it, and
int8 equals int8 of the same tensors in safetensors. Then a model with tied weights: transformers loads the served file
without a missing or unexpected key. The exit status is 1 where anything differs.
"""

import collections
import json
import shutil
import subprocess
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file

from mounting import mounted, work_folder

CONFIG = json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
# Runs in this Python and in the system's, so it knows only what torch 1.13 knows.
SAVE = """
import collections, pathlib, sys, torch

def tensors(new):
    random = torch.Generator().manual_seed(3)
    def weight(*shape, dtype=torch.float32):
        return (torch.randn(*shape, generator=random) * 0.02).to(dtype)
    base = weight(512, 256)
    wide = weight(256, 640, dtype=torch.bfloat16)
    out = {
        "model.embed_tokens.weight": base, "lm_head.weight": base, "half": base[256:],
        "model.layers.0.self_attn.q_proj.weight": weight(256, 384, dtype=torch.bfloat16).t(),
        "model.layers.0.self_attn.k_proj.weight": wide[:, 128:384],
        "model.layers.0.self_attn.v_proj.weight": torch.nn.Parameter(weight(256, 256, dtype=torch.float16)),
        "model.layers.0.mlp.down_proj.weight": weight(2, 64, 128).permute(1, 0, 2).reshape(64, 256),
        "conv": weight(8, 4, 3, 3).to(memory_format=torch.channels_last), "expanded": weight(1, 8).expand(4, 8),
        "steps": weight(33)[::4], "empty": torch.zeros(3, 0, 5), "scalar": torch.tensor(7), "real": torch.tensor(0.1),
        "bool": torch.tensor([[True, False]]), "model.norm.weight": torch.ones(256, dtype=torch.float64),
    }
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        out[str(dtype)] = torch.arange(-6, 6).reshape(3, 4).to(dtype).t()
    out["complex"] = torch.complex(weight(4, 6), weight(4, 6)).t()
    if new:
        for dtype in ("float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz", "float4_e2m1fn_x2"):
            out[dtype] = torch.arange(24, dtype=torch.uint8).reshape(4, 6).view(getattr(torch, dtype))
        out["e4m3"] = weight(8, 4).to(torch.float8_e4m3fn).t()
        out["e5m2"] = weight(8).to(torch.float8_e5m2)
        out["uint16"] = torch.tensor([1, 65535]).to(torch.uint16)
    return out

def ordered(state):
    state = collections.OrderedDict(state)
    state._metadata = collections.OrderedDict([("", {"version": 1})])
    return state

root, kind = pathlib.Path(sys.argv[1]), sys.argv[2]
new = hasattr(torch, "float8_e4m3fn")
legacy = {"_use_new_zipfile_serialization": False}

def save(name, file, what, **options):
    folder = root / (kind + "-" + name)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(sys.argv[3])
    torch.save(what, str(folder / file), **options)
    return folder

save("zip", "pytorch_model.bin", ordered(tensors(new)))
save("dict", "net.pt", tensors(new))
save("legacy", "pytorch_model.bin", ordered(tensors(False)), **legacy)
save("wrapped", "net.pth", {"epoch": 3, "loss": 0.5, "state_dict": ordered(tensors(new)), "args": {"lr": [1e-3]}})
save("legacy-wrapped", "net.pth", {"model": tensors(False), "step": torch.tensor(1)}, **legacy)
folder = save("shards", "pytorch_model-00001-of-00002.bin", dict(list(tensors(new).items())[:7]))
torch.save(dict(list(tensors(new).items())[7:]), str(folder / "pytorch_model-00002-of-00002.bin"))
"""

failures = []


def check(ok, what):
    if not ok:
        failures.append(what)
        print("DIFFERS", what)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(
        a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8))


def state_dict(folder):
    """What torch itself loads from the folder."""
    state = {}
    for file in sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]):
        loaded = torch.load(file, weights_only=False)
        state |= loaded.get("state_dict", loaded.get("model", loaded))
    return {name: tensor.detach() for name, tensor in state.items()}


def write_index(folder):
    weight_map = {name: file.name for file in folder.glob("*.bin") for name in torch.load(file, weights_only=False)}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def make_models(root):
    pythons = {"new": sys.executable, "old": "/usr/bin/python3"}
    for kind, python in pythons.items():
        if subprocess.run([python, "-c", "import torch"], capture_output=True).returncode != 0:
            print("SKIPPED: the system's Python has no torch (package python3-torch)")
            continue
        subprocess.run([python, "-W", "ignore", "-c", SAVE, root, kind, CONFIG], check=True)
        write_index(root / f"{kind}-shards")
    names = sorted(folder.name for folder in root.iterdir())
    for name in names:
        twin = root / f"{name}-twin"
        twin.mkdir()
        (twin / "config.json").write_text(CONFIG)
        save_file({key: tensor.clone().contiguous() for key, tensor in state_dict(root / name).items()},
                  twin / "model.safetensors", {"format": "pt"})
    return names


def check_model(root, mount, name):
    source = state_dict(root / name)
    for dtype, cast in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        served = torch.load(f"{mount}/{name}/{dtype}/0.bin", weights_only=True, mmap=dtype == "bf16")
        check(served.keys() == source.keys(), f"{name} {dtype}: {served.keys() ^ source.keys()}")
        for key, tensor in source.items():
            wide = tensor.dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
            check(same(served[key], tensor.to(cast) if wide else tensor), f"{name} {dtype} {key}")
    served, twin = (torch.load(f"{mount}/{model}/int8/0.bin", weights_only=True) for model in (name, f"{name}-twin"))
    check(served.keys() == twin.keys(), f"{name} int8: {served.keys() ^ twin.keys()}")
    check(any(key.endswith("weight_scale") for key in served), f"{name} int8: nothing is quantized")
    folder = load_file(f"{mount}/{name}/int8/0/model.safetensors")
    check(folder.keys() == twin.keys(), f"{name} int8 folder: {folder.keys() ^ twin.keys()}")
    for key, tensor in twin.items():
        check(same(served[key], tensor), f"{name} int8 {key}")
        check(same(folder[key], tensor), f"{name} int8 folder {key}")
    print(f"{name}: {len(source)} tensors")


def tied_model():
    config = transformers.LlamaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                                      vocab_size=128, tie_word_embeddings=True)
    return config, transformers.LlamaForCausalLM(config)


def make_tied_model(folder):
    torch.manual_seed(4)
    config, model = tied_model()
    folder.mkdir(parents=True)
    state = model.state_dict()
    check("lm_head.weight" in state, "transformers' state_dict has the tied weight twice")
    torch.save(state, folder / "pytorch_model.bin")
    config.save_pretrained(folder)
    return state


def check_tied_model(mount, source, state, work):
    served = torch.load(f"{mount}/tied/fp32/0.bin", weights_only=True)
    check(served.keys() == state.keys() and all(same(served[key], state[key]) for key in state), "tied: tensors")
    tied_model()[1].load_state_dict(served, strict=True)
    folder = work / "loaded"
    folder.mkdir()
    shutil.copy(f"{mount}/tied/fp32/0.bin", folder / "pytorch_model.bin")
    shutil.copy(source / "config.json", folder)
    model, info = transformers.LlamaForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    check(not any(info.values()), f"tied: transformers reports {info}")
    check(all(same(tensor, state[key]) for key, tensor in model.state_dict().items()), "tied: transformers' weights")
    print(f"tied: {len(state)} keys, {collections.Counter(map(len, info.values()))}")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    command = sys.argv[1]
    with work_folder("torch-sources") as work:
        root = work / "models"
        names = make_models(root)
        state = make_tied_model(root / "tied")
        with mounted(command, work, root) as mount:
            for name in names:
                check_model(root, mount, name)
            check_tied_model(mount, root / "tied", state, work)
    print(f"{len(failures)} differences")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
