#!/usr/bin/env python3
"""Checks checkpoints of the torch zip layout with readers that are not ours.

  torch_zip_check.py zip [--limit-bytes N] FILE...   Python's zipfile and pickle; needs no torch
  torch_zip_check.py torch FILE...                   torch.load, weights_only, with and without mmap

Beside each FILE lies FILE.json: a list of {name, dtype, shape, crc32}, the tensors that must be found, in order.
Every problem is printed; the exit status is 1 where there was one. dump_torch_zip writes a set of files.
"""

import argparse
import collections
import inspect
import json
import math
import pickle
import struct
import sys
import zipfile
import zlib

TRAILED_CRC = 0x2144DF1C
TYPED_STORAGES = {
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "ComplexFloatStorage": ("complex64", 8),
    "ComplexDoubleStorage": ("complex128", 16),
    "UntypedStorage": (None, 1),
}
ITEM_BYTES = {name: size for name, size in TYPED_STORAGES.values() if name}
ITEM_BYTES.update(uint64=8, uint32=4, uint16=2, float8_e4m3fn=1, float8_e5m2=1, complex32=4)
ITEM_BYTES.update(float8_e8m0fnu=1, float8_e4m3fnuz=1, float8_e5m2fnuz=1, float4_e2m1fn_x2=1)

Tensor = collections.namedtuple("Tensor", "storage offset shape strides dtype")
Storage = collections.namedtuple("Storage", "dtype item key location numel")


def rebuild(storage, offset, shape, strides, requires_grad, hooks, dtype=None):
    assert requires_grad is False and hooks == collections.OrderedDict()
    assert (dtype is None) != (storage.dtype is None), "typed storages go with v2, untyped ones with v3"
    return Tensor(storage, offset, shape, strides, dtype or storage.dtype)


class Unpickler(pickle.Unpickler):
    """Stand-ins for torch's classes: enough to see what a checkpoint says."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor_v3"):
            return rebuild
        if name in TYPED_STORAGES and module == ("torch.storage" if name == "UntypedStorage" else "torch"):
            return TYPED_STORAGES[name]
        if module == "torch" and name in ITEM_BYTES:
            return name
        raise pickle.UnpicklingError(f"unexpected global {module}.{name}")

    def persistent_load(self, pid):
        kind, (dtype, item), key, location, numel = pid
        assert kind == "storage" and location == "cpu"
        return Storage(dtype, item, key, location, numel)


def contiguous_strides(shape):
    strides, stride = [], 1
    for extent in reversed(shape):
        strides.insert(0, stride)
        stride *= max(extent, 1)
    return tuple(strides)


def crc_of_member(archive, info, count):
    """CRC-32 of the member's first `count` bytes; reading on to its end makes zipfile check the member's own."""
    crc, left = 0, count
    with archive.open(info) as member:
        while chunk := member.read(1 << 22):
            crc = zlib.crc32(chunk[:left], crc)
            left -= min(left, len(chunk))
    return crc if left == 0 else None


def check_zip(path, limit_bytes):
    problems = []

    def expect(condition, what):
        if not condition:
            problems.append(what)

    manifest = json.load(open(path + ".json", encoding="utf-8"))
    with zipfile.ZipFile(path) as archive, open(path, "rb") as raw:
        infos = {info.filename: info for info in archive.infolist()}
        expect(len(infos) == len(archive.infolist()), "two members of one name")
        small = ["archive/data.pkl", "archive/byteorder", "archive/version"]
        small += ["archive/qcache.json"] if "archive/qcache.json" in infos else []
        expect(list(infos) == small + [f"archive/data/{i}" for i in range(len(manifest))], "members or their order")
        expect(archive.read("archive/byteorder") == b"little", "byteorder")
        expect(archive.read("archive/version") == b"3\n", "version")
        if "archive/qcache.json" in infos:
            expect(json.loads(archive.read("archive/qcache.json"))["qcache"] == 1, "qcache.json")
        with archive.open("archive/data.pkl") as member:
            tensors = Unpickler(member).load()
        expect(list(tensors) == [entry["name"] for entry in manifest], "names or their order")

        for i, entry in enumerate(manifest):
            name = entry["name"]
            info, tensor = infos[f"archive/data/{i}"], tensors[name]
            size = math.prod(entry["shape"]) * ITEM_BYTES[entry["dtype"]]
            expect(tensor.storage.key == str(i), f"{name}: storage key {tensor.storage.key}")
            expect(tensor.dtype == entry["dtype"], f"{name}: dtype {tensor.dtype}")
            expect(list(tensor.shape) == entry["shape"], f"{name}: shape {tensor.shape}")
            expect(tensor.strides == contiguous_strides(entry["shape"]), f"{name}: strides {tensor.strides}")
            expect(tensor.offset == 0, f"{name}: offset {tensor.offset}")
            expect(tensor.storage.numel * tensor.storage.item == info.file_size, f"{name}: numel and record differ")
            expect(info.CRC == (TRAILED_CRC if size else 0), f"{name}: CRC {info.CRC:08x}")

            # The local header, which zipfile looks at only in part.
            raw.seek(info.header_offset)
            header = raw.read(30)
            crc, packed, unpacked, name_bytes, extra_bytes = struct.unpack("<IIIHH", header[14:])
            expect(crc == info.CRC, f"{name}: CRC of the local header")
            expect(packed == unpacked == min(info.file_size, 0xFFFFFFFF), f"{name}: sizes of the local header")
            raw.seek(name_bytes, 1)
            extra = raw.read(extra_bytes)
            while extra:
                kind, length = struct.unpack("<HH", extra[:4])
                field, extra = extra[4 : 4 + length], extra[4 + length :]
                if kind == 1:
                    expect(struct.unpack("<QQ", field) == (info.file_size,) * 2, f"{name}: zip64 sizes")
                else:
                    expect(kind == 0x4246 and field == b"Z" * length, f"{name}: extra field {kind:04x}")

            if limit_bytes is None or info.file_size <= limit_bytes:
                expect(crc_of_member(archive, info, size) == entry["crc32"], f"{name}: content")
        for name in small:
            archive.read(name)  # checks the CRC
        if limit_bytes is None:
            expect(archive.testzip() is None, "testzip")
    return problems


def check_torch(path):
    import torch  # not at the top: the zip checks run without it

    problems = []
    manifest = json.load(open(path + ".json", encoding="utf-8"))
    ways = [{"weights_only": True}]
    if "mmap" in inspect.signature(torch.load).parameters:
        ways.append({"weights_only": True, "mmap": True})
    for way in ways:
        tensors = torch.load(path, **way)
        if type(tensors) is not dict or list(tensors) != [entry["name"] for entry in manifest]:
            problems.append(f"{way}: names or their order")
            continue
        for entry in manifest:
            tensor = tensors[entry["name"]]
            what = f"{way}: {entry['name']}"
            if tensor.dtype != getattr(torch, entry["dtype"]) or list(tensor.shape) != entry["shape"]:
                problems.append(f"{what}: {tensor.dtype} {tuple(tensor.shape)}")
                continue
            if not tensor.is_contiguous():
                problems.append(f"{what}: not contiguous")
                continue
            flat = tensor.reshape(-1).view(torch.uint8) if tensor.numel() else tensor.new_empty(0, dtype=torch.uint8)
            crc = 0
            for part in flat.split(1 << 24):
                crc = zlib.crc32(part.numpy(), crc)
            if crc != entry["crc32"]:
                problems.append(f"{what}: content")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reader", choices=["zip", "torch"])
    parser.add_argument("--limit-bytes", type=int, help="do not read members that are larger (zip)")
    parser.add_argument("files", nargs="+", metavar="FILE")
    options = parser.parse_args()
    failed = False
    for path in options.files:
        try:
            problems = check_zip(path, options.limit_bytes) if options.reader == "zip" else check_torch(path)
        except Exception as error:  # the readers' own: whatever they raise is a problem of the file
            problems = [f"{type(error).__name__}: {error}"]
        for problem in problems:
            print(f"{path}: {problem}", file=sys.stderr)
        failed = failed or bool(problems)
        if options.reader == "torch":
            print(f"{path}: {'failed' if problems else 'ok'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
