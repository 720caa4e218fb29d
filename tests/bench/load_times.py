#!/usr/bin/env python3
"""How long a program waits for its model: loading a folder through the mount beside the other ways to the same model.

    tests/bench/load_times.py QCACHE_COMMAND WORK_FOLDER [--turns N] [--cold] [DTYPE...]

It needs the packages of tests/frameworks/requirements.txt, and 4 GB in WORK_FOLDER, where a random model as large as
Qwen2.5-0.5B is kept from run to run. For each dtype (nf4, qfloat8, int8, or those named), in a process of its own, forked
after all imports, with all weights in the page cache (with --cold: none of them, so that the disk is read):

  first   through the mount, of a model that was never quantized
  later   through the mount, when its file is complete
  copy    of the same folder, copied to the disk
  own     the framework quantizes the original while it loads (bitsandbytes), or in place after it (quanto)

"load" is from_pretrained, or quanto's requantize as docs/FRAMEWORKS.md tells; "use" is that and one token's forward, because a
loader may leave the weights in a mapping that nobody has read yet. The least of several turns ("later" and "copy": two to a turn),
taken turn by turn, so that a busy machine shows less. The kernels' time is what qcache computes, by the speeds in docs/SCHEMES.md, shared by all cores.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import traceback
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")

WAYS = ("first", "later", "copy", "own")
QUANTO = ("qfloat8", "qint8", "qint4")
BITSANDBYTES = {"nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "int8-bnb": {"load_in_8bit": True},
                "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
                "nf4-dq": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}}
KERNEL_GB_PER_S = {"nf4": 4.0, "qfloat8": 5.2, "int8": 10.8, "fp8": 6.1, "int4": 5.5, "w8a16": 5.8, "qint8": 7.4, "qint4": 3.0,
                   "fp8-block": 6.1, "int8-bnb": 6.7, "fp4": 3.4, "mxfp4": 2.8, "nvfp4": 2.0, "nf4-dq": 2.1}
MODEL = "random-qwen2-0.5b"


def make_model(folder):
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    torch.manual_seed(1)
    config = Qwen2Config(vocab_size=151936, hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
                         intermediate_size=4864, max_position_embeddings=32768, tie_word_embeddings=True)
    scratch = folder.with_suffix(".part")
    shutil.rmtree(scratch, ignore_errors=True)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(scratch)
    scratch.rename(folder)  # complete, or not at all


def import_everything():
    """What every way needs, before any clock starts. Starts no thread, so that forked processes can go on from here."""
    import bitsandbytes
    import compressed_tensors
    import optimum.quanto
    import transformers.models.qwen2.modeling_qwen2

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return bitsandbytes, compressed_tensors, optimum.quanto


def load_here(folder, dtype, own):
    """{"load": seconds, "use": seconds}, in this process."""
    import torch
    from accelerate import init_empty_weights
    from optimum import quanto
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

    begin = time.perf_counter()
    if dtype in QUANTO and own:
        model = AutoModelForCausalLM.from_pretrained(folder)
        quanto.quantize(model, weights=getattr(quanto, dtype))
        quanto.freeze(model)
    elif dtype in QUANTO:
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
        quanto.requantize(model, load_file(folder / "model.safetensors"), json.loads((folder / "quanto_qmap.json").read_text()),
                          device=torch.device("cpu"))
        model.tie_weights()
    elif own:
        model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", quantization_config=BitsAndBytesConfig(
            bnb_4bit_compute_dtype=torch.bfloat16, **BITSANDBYTES[dtype]))
    else:
        model = AutoModelForCausalLM.from_pretrained(folder)
    loaded = time.perf_counter()
    with torch.no_grad():
        output = model.eval()(torch.tensor([[1]]))[0]
    used = time.perf_counter()
    assert bool(output.isfinite().all())
    return {"load": loaded - begin, "use": used - begin}


def in_child(action, *arguments):
    """Runs it in a forked process; returns what it returned, through JSON."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writer, json.dumps(action(*arguments)).encode())
            status = 0
        except Exception:
            traceback.print_exc()
        os._exit(status)
    os.close(writer)
    with open(reader) as pipe:
        text = pipe.read()
    if os.waitpid(child, 0)[1] != 0:
        sys.exit(f"{action.__name__}{arguments} failed")
    return json.loads(text)


def read_all(folder):
    """So that it is in the page cache."""
    for path in folder.glob("*.safetensors"):
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 24):
                pass


def evict(folder):
    """So that it is not in the page cache; for a file of the mount, its backing file."""
    for path in folder.glob("*.safetensors"):
        if "user.qcache.backing" in os.listxattr(path):
            path = os.getxattr(path, "user.qcache.backing")
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def wait_until_sealed(path):
    for _ in range(600):
        if os.getxattr(path, "user.qcache.state") == b"sealed":
            return
        time.sleep(0.1)
    sys.exit(f"{path} is not complete after a minute")


def quantized_bytes(source, served):
    """Of the source, those of the tensors that are stored in another way."""

    def header(path):
        with open(path, "rb") as file:
            return json.loads(file.read(int.from_bytes(file.read(8), "little")))

    original, stored = (header(folder / "model.safetensors") for folder in (source, served))
    return sum(tensor["data_offsets"][1] - tensor["data_offsets"][0] for name, tensor in original.items()
               if name != "__metadata__" and stored.get(name, {}).get("dtype") != tensor["dtype"])


def measure(command, work, source, dtype, turns, prepare):
    """The least seconds by way, and the bytes that were quantized."""
    mount, copy, best, quantized = work / "mnt", work / "copy", {}, 0
    mount.mkdir(exist_ok=True)

    def take(way, *arguments):
        found = in_child(load_here, *arguments)
        best[way] = {part: min(seconds, best.get(way, found)[part]) for part, seconds in found.items()}

    for _ in range(turns):
        shutil.rmtree(work / "cache", ignore_errors=True)
        subprocess.run([command, "mount", "--cache-dir", work / "cache", work / "models", mount], check=True)
        try:
            folder = mount / MODEL / dtype / "0"
            prepare(source)
            take("first", folder, dtype, False)
            read_all(folder)
            wait_until_sealed(folder / "model.safetensors")
            quantized = quantized_bytes(source, folder)
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy, copy_function=shutil.copyfile)  # without extended attributes
            for way, place in (("later", folder), ("copy", copy), ("later", folder), ("copy", copy)):
                prepare(place)
                take(way, place, dtype, False)
        finally:
            subprocess.run([command, "unmount", mount], check=True)
        if dtype in QUANTO or dtype in BITSANDBYTES:
            prepare(source)
            take("own", source, dtype, True)
    shutil.rmtree(copy)
    shutil.rmtree(work / "cache")
    return best, quantized


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command")
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("dtypes", nargs="*", default=["nf4", "qfloat8", "int8"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="read the disk, not the page cache")
    arguments = parser.parse_intermixed_args()
    import_everything()
    source = arguments.work.resolve() / "models" / MODEL
    if not source.exists():
        source.parent.mkdir(parents=True, exist_ok=True)
        in_child(make_model, source)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; the model has "
          f"{(source / 'model.safetensors').stat().st_size / 1e6:.0f} MB")
    for dtype in arguments.dtypes:
        best, quantized = measure(arguments.command, arguments.work.resolve(), source, dtype, arguments.turns,
                                  evict if arguments.cold else read_all)
        kernels = quantized / KERNEL_GB_PER_S[dtype] / 1e9 / os.cpu_count()
        print(f"\n{dtype}: {quantized / 1e6:.0f} MB quantized, kernels {kernels:.2f} s; load {os.getloadavg()[0]:.1f}")
        for part in ("load", "use"):
            seconds = {way: times[part] for way, times in best.items()}
            text = ", ".join(f"{way} {seconds[way]:.2f} s" for way in WAYS if way in seconds)
            ratios = [f"(first - kernels) / copy {(seconds['first'] - kernels) / seconds['copy']:.2f}",
                      f"later / copy {seconds['later'] / seconds['copy']:.2f}"]
            if "own" in seconds:
                ratios.append(f"first / own {seconds['first'] / seconds['own']:.3f}")
            print(f"  {part:4}  {text}   {', '.join(ratios)}", flush=True)


if __name__ == "__main__":
    main()
