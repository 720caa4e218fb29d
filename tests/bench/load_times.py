#!/usr/bin/env python3
"""How long a program waits for its model: loading a folder through the mount beside the other ways to the same model.

    tests/bench/load_times.py QCACHE_COMMAND WORK_FOLDER [--turns N] [--cold] [--no-own] [--no-peft] [DTYPE...]

It needs the packages of tests/frameworks/requirements.txt, and 4 GB in WORK_FOLDER, where a random model as large as
Qwen2.5-0.5B is kept from run to run. For each dtype (nf4, qfloat8, int8, or those named), in a process of its own, forked
after all imports, with all weights in the page cache (with --cold: none of them, so that the disk is read):

  first   through the mount, of a model that was never quantized
  later   through the mount, when its file is complete
  copy    of the same folder, copied to the disk
  own     the framework quantizes the original while it loads (bitsandbytes), or in place after it (quanto)

"load" is from_pretrained, or quanto's requantize as docs/FRAMEWORKS.md tells; "use" is that and one token's forward, because a
loader may leave the weights in a mapping that nobody has read yet. Turn by turn, each way once a turn, so that a busy machine
harms all alike: medians, and the medians of the ratios within a turn. Before each load so much memory is touched and given back
as the load will need: a virtual machine has to ask for memory that it has not used, which takes longer than anything else here.
With --no-peft transformers does not find peft, and so does not announce that it is going to load a folder.
"""

import argparse
import json
import os
import mmap
import pathlib
import shutil
import statistics
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
READY_MEMORY = 3 << 30
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


def hide_peft():
    """transformers looks for the package's metadata, once."""
    import importlib.util

    find_spec = importlib.util.find_spec
    importlib.util.find_spec = lambda name, package=None: None if name == "peft" else find_spec(name, package)


def import_everything():
    """What every way needs, before any clock starts. Starts no thread, so that forked processes can go on from here."""
    import bitsandbytes
    import compressed_tensors
    import optimum.quanto
    import transformers.models.qwen2.modeling_qwen2

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return bitsandbytes, compressed_tensors, optimum.quanto


def ready_memory():
    """Has the machine get as much memory as a load needs, and gives it back."""
    mmap.mmap(-1, READY_MEMORY, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


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
            qmap = json.loads((folder / "quanto_qmap.json").read_text())
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
        quanto.requantize(model, load_file(folder / "model.safetensors"), qmap, device=torch.device("cpu"))
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


def wait_until_hashed(path):
    """Until nothing of it is left to do in quiet."""
    for _ in range(600):
        if "user.qcache.sha256" in os.listxattr(path):
            return
        time.sleep(0.1)
    sys.exit(f"{path} is not sealed after a minute")


def measure(command, work, source, dtype, turns, prepare, with_own):
    """By part and way the seconds of each turn."""
    mount, copy, seconds = work / "mnt", work / "copy", {"load": {}, "use": {}}
    mount.mkdir(exist_ok=True)

    def take(way, folder, own):
        prepare(folder if way != "first" else source)
        ready_memory()
        for part, value in in_child(load_here, folder, dtype, own).items():
            seconds[part].setdefault(way, []).append(value)

    for _ in range(turns):
        shutil.rmtree(work / "cache", ignore_errors=True)
        subprocess.run([command, "mount", "--cache-dir", work / "cache", work / "models", mount], check=True)
        try:
            folder = mount / MODEL / dtype / "0"
            take("first", folder, False)
            wait_until_hashed(folder / "model.safetensors")
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy, copy_function=shutil.copyfile)  # without extended attributes
            take("copy", copy, False)
            take("later", folder, False)
        finally:
            subprocess.run([command, "unmount", mount], check=True)
        if with_own and (dtype in QUANTO or dtype in BITSANDBYTES):
            take("own", source, True)
    shutil.rmtree(copy)
    shutil.rmtree(work / "cache")
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command")
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("dtypes", nargs="*", default=["nf4", "qfloat8", "int8"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="read the disk, not the page cache")
    parser.add_argument("--no-own", action="store_true", help="leave out the framework's own quantizing")
    parser.add_argument("--no-peft", action="store_true", help="as where peft is not installed")
    arguments = parser.parse_intermixed_args()
    if arguments.no_peft:
        hide_peft()
    import_everything()
    source = arguments.work.resolve() / "models" / MODEL
    if not source.exists():
        source.parent.mkdir(parents=True, exist_ok=True)
        in_child(make_model, source)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; the model has "
          f"{(source / 'model.safetensors').stat().st_size / 1e6:.0f} MB")
    for dtype in arguments.dtypes:
        found = measure(arguments.command, arguments.work.resolve(), source, dtype, arguments.turns,
                        evict if arguments.cold else read_all, not arguments.no_own)
        print(f"\n{dtype}, {arguments.turns} turns; load {os.getloadavg()[0]:.1f}")
        for part, times in found.items():
            ways = [way for way in WAYS if way in times]
            text = ", ".join(f"{way} {statistics.median(times[way]):.2f} s" for way in ways)

            def ratio(way, other):
                return f"{way} / {other} {statistics.median(a / b for a, b in zip(times[way], times[other])):.2f}"

            ratios = [ratio("first", "copy"), ratio("later", "copy")] + ([ratio("first", "own")] if "own" in times else [])
            print(f"  {part:4}  {text}   {', '.join(ratios)}", flush=True)


if __name__ == "__main__":
    main()
