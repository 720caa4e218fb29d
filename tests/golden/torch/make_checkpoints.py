#!/usr/bin/env python3
"""Writes the checkpoints of this folder with the torch of the Python that runs it.

  make_checkpoints.py [FOLDER]

For each kind: torch-VERSION-KIND.bin, made by torch.save alone. What the tensors of those that qcache reads must be goes
to torch-VERSION.txt, one a line: file, tensor, dtype, shape ("-": a scalar), bytes in hexadecimal ("-": none). Committed
are those of torch 1.13 (Debian's) and 2.15.
"""

import collections
import pathlib
import sys

import torch

VERSION = "torch-" + ".".join(torch.__version__.split(".")[:2])
FOLDER = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
FLOAT8 = hasattr(torch, "float8_e4m3fn")


def ramp(*shape, dtype=torch.float32):
    count = 1
    for extent in shape:
        count *= extent
    return torch.arange(1, count + 1).reshape(shape).to(dtype)


def plain():
    """Every dtype that both formats and both versions know, and every way to lie in a storage."""
    base = ramp(4, 6)
    wide = ramp(2, 3, 4, dtype=torch.int16)
    tensors = {
        "matrix": ramp(3, 5),
        "transposed": ramp(3, 5, dtype=torch.float16).t(),
        "permuted": wide.permute(2, 0, 1),
        "columns": base[:, 1:4],
        "rows": base[2:],
        "steps": base[::2, ::3],
        "tied": base,
        "tied_too": base,
        "expanded": ramp(3, 1, dtype=torch.bfloat16).expand(3, 4),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(2.5),
        "parameter": torch.nn.Parameter(ramp(2, 2)),
        "bool": torch.tensor([True, False, True]),
    }
    for dtype in (torch.float64, torch.bfloat16, torch.int64, torch.int32, torch.int8, torch.uint8):
        tensors[str(dtype).split(".")[1]] = ramp(2, 3, dtype=dtype)
    return tensors


def as_state_dict(tensors):
    """As nn.Module.state_dict() gives it: with an attribute that the pickle sets."""
    state = collections.OrderedDict(tensors)
    state._metadata = collections.OrderedDict([("", {"version": 1})])
    return state


def untyped():
    """dtypes without a storage class of their own."""
    values = torch.tensor([0.5, -1.5, 448.0])
    return {
        "e4m3": values.to(torch.float8_e4m3fn),
        "e5m2": values.to(torch.float8_e5m2),
        "uint16": torch.tensor([1, 65535], dtype=torch.uint16),
        "uint32": torch.tensor([1, 2], dtype=torch.uint32),
        "uint64": torch.tensor([[1], [2]], dtype=torch.uint64),
        "e4m3_transposed": ramp(2, 3).to(torch.float8_e4m3fn).t(),
    }


def training(key):
    """What trainers save around a state dict."""
    weight = torch.nn.Parameter(ramp(2, 2))
    optimizer = torch.optim.SGD([weight], lr=0.5, momentum=0.5)
    weight.sum().backward()
    optimizer.step()
    with_attribute = torch.nn.Parameter(ramp(2))
    with_attribute.note = "kept by torch, of no matter here"
    return {
        "epoch": 3,
        "loss": 0.25,
        "best": torch.tensor(1.0),
        "optimizer": optimizer.state_dict(),
        "args": {"lr": 1e-3, "names": ["a", b"b", None, 2**70], "shape": torch.Size([1, 2])},
        key: as_state_dict({"weight": weight.detach(), "with_attribute": with_attribute, "count": 7,
                            "nested": {"inner": ramp(1)}}),
    }


def refused():
    """Kinds that qcache must refuse, whole."""
    yield "sparse", {"x": torch.eye(2).to_sparse()}
    yield "quantized", {"x": torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.qint8)}
    if FLOAT8:  # older ones lose the sign themselves
        yield "negated", {"x": torch._neg_view(torch.ones(2))}
    yield "module", torch.nn.Linear(2, 2)
    yield "list", [torch.ones(2)]
    yield "without_tensors", {"x": 1, "y": {"z": torch.ones(1)}}


def main():
    lines = []

    def save(kind, what, expected=None, **options):
        name = f"{VERSION}-{kind}.bin"
        torch.save(what, str(FOLDER / name), **options)
        for key, tensor in (expected or {}).items():
            tensor = tensor.detach().contiguous()
            data = bytes(tensor.reshape(-1).view(torch.uint8).tolist()).hex() if tensor.numel() else "-"
            shape = "x".join(map(str, tensor.shape)) or "-"
            lines.append(f"{name} {key} {str(tensor.dtype).split('.')[1]} {shape} {data}")

    save("zip", as_state_dict(plain()), plain())
    save("legacy", as_state_dict(plain()), plain(), _use_new_zipfile_serialization=False)
    save("protocol4", plain(), plain(), pickle_protocol=4)
    save("legacy_protocol4", plain(), plain(), pickle_protocol=4, _use_new_zipfile_serialization=False)
    for key, options in (("state_dict", {}), ("model", {"_use_new_zipfile_serialization": False})):
        what = training(key)
        kept = {name: what[key][name] for name in ("weight", "with_attribute")}
        save(f"training_{key}", what, kept, **options)
    if FLOAT8:
        save("untyped", untyped(), untyped())
    for kind, what in refused():
        save(f"refused_{kind}", what)
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(FOLDER / f"{VERSION}-refused_torchscript.bin"))
    (FOLDER / f"{VERSION}.txt").write_text("\n".join(lines) + "\n")


main()
