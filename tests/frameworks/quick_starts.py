"""Runs the README's quick starts as they are written there: its shell commands by a shell, its programs by this Python.

Arguments: QCACHE_COMMAND README

They name /mnt/qcache, ~/models, /etc/fstab and other places of the machine, so all of it happens in a mount namespace of its
own, where those are the test's, with a small model called as the README's. Needs root; without it the test counts as skipped.
"""

import os
import pathlib
import re
import subprocess
import sys

SKIPPED = 77
MODEL = "Qwen2.5-0.5B"
INSIDE = "QCACHE_QUICK_STARTS_INSIDE"


def section(readme, title):
    """The text below a heading, up to the next of its level or above."""
    begin = re.search(rf"^(#+) {re.escape(title)}$", readme, re.MULTILINE)
    assert begin, f"the README has no section '{title}'"
    rest = readme[begin.end():]
    end = re.search(rf"^#{{1,{len(begin[1])}}} ", rest, re.MULTILINE)
    return rest[:end.start()] if end else rest


def blocks(text, language):
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, f"no block of {language or 'plain text'} in: {text[:200]}"
    return found


def run(words, what, **arguments):
    print(f"--- {what}", flush=True)
    subprocess.run(words, check=True, timeout=300, **arguments)


def shell(script, what):
    run(["bash", "-euo", "pipefail", "-c", script], what)


def python(program, what, folder):
    run([sys.executable, "-W", "ignore", "-c", program], what, cwd=folder)


def make_model(folder):
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    config = transformers.Qwen2Config(vocab_size=512, hidden_size=512, num_hidden_layers=2, num_attention_heads=8,
                                      num_key_value_heads=2, intermediate_size=1024, max_position_embeddings=64)
    torch.manual_seed(1)
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    # One token a byte, as a tokenizer of Qwen2 without merges: transformers chooses the class by the model's type.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)


def set_scene(work, command):
    """Gives the places that the README names to the test. REQUIRES: a mount namespace of our own."""
    # Mounts of other tests stay where they were made: here, a command would ask which of them is meant.
    for line in reversed(pathlib.Path("/proc/self/mounts").read_text().splitlines()):
        _, place, kind = line.split(" ")[:3]
        if kind == "fuse.qcache":
            subprocess.run(["umount", "--lazy", place.encode().decode("unicode_escape")], check=True)
    for place in ("/mnt", "/srv", "/var/cache"):
        subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    for name in ("bin", "sbin", "home"):
        (work / name).mkdir()
    (work / "bin/qcache").symlink_to(command)
    (work / "bin/sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (work / "bin/sudo").chmod(0o755)
    (work / "sbin/mount.fuse.qcache").symlink_to(command)
    sbin = os.path.realpath("/sbin")
    subprocess.run(["mount", "-t", "overlay", "none", "-o", f"lowerdir={work / 'sbin'}:{sbin}", sbin], check=True)
    layers = pathlib.Path("/srv/layers")  # on tmpfs, as an overlay's upper layer cannot lie on another overlay
    for name in ("upper", "work"):
        (layers / name).mkdir(parents=True)
    subprocess.run(["mount", "-t", "overlay", "none", "-o",
                    f"lowerdir=/etc,upperdir={layers / 'upper'},workdir={layers / 'work'}", "/etc"], check=True)
    pathlib.Path("/etc/fstab").write_text("")
    os.environ.update(HOME=str(work / "home"), USER="root", PATH=f"{work / 'bin'}:{os.environ['PATH']}", HF_HUB_OFFLINE="1")
    os.environ.pop("QWEN_CACHE", None)
    make_model(work / "home/models" / MODEL)
    pathlib.Path("/srv/models").mkdir()
    subprocess.run(["cp", "-a", work / "home/models" / MODEL, "/srv/models"], check=True)


def unmount():
    subprocess.run(["qcache", "unmount", "--lazy", "/mnt/qcache"], check=True)


def check(readme, work):
    print("=== the first example", flush=True)
    os.mkdir("/mnt/qcache")
    for line in re.findall(r"^\$ (.*)$", blocks(readme, "")[0], re.MULTILINE):
        shell(line, line)

    print("=== three commands", flush=True)
    os.rmdir("/mnt/qcache")
    commands = re.findall(r"^    (\S.*?)(?: {2,}#.*)?$", section(readme, "Three commands to a folder that loads"), re.MULTILINE)
    assert len(commands) == 3 and commands[0] == "tools/install", commands
    for command in commands[1:]:
        shell(command, command)
    python(f'from transformers import AutoModelForCausalLM as A; A.from_pretrained("/mnt/qcache/{MODEL}/nf4/0")', "load", work)
    unmount()

    for title in ("A server on transformers", "A LoRA trainer"):
        print(f"=== {title}", flush=True)
        text = section(readme, title)
        for script in blocks(text, "sh"):
            shell(script, title)
        for program in blocks(text, "python"):
            python(program, title, work)
        unmount()
    assert (work / "my-lora/adapter_model.safetensors").is_file()

    print("=== ten machines", flush=True)
    os.rmdir("/mnt/qcache")
    for script in blocks(section(readme, "Ten machines"), "sh"):
        shell(script, "as root")
    assert pathlib.Path("/var/cache/qcache/index").is_dir()
    unmount()


def main():
    command, readme = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
    if os.geteuid() != 0:
        print("skipped: needs root, to have mounts of its own")
        return SKIPPED
    if INSIDE not in os.environ:
        from mounting import work_folder
        with work_folder("quick-starts") as work:
            return subprocess.run(["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv],
                                  env=os.environ | {INSIDE: str(work)}).returncode
    work = pathlib.Path(os.environ[INSIDE])
    set_scene(work, command)
    try:
        check(readme.read_text(), work)
    finally:
        subprocess.run(["qcache", "unmount", "--lazy", "/mnt/qcache"], stderr=subprocess.DEVNULL)
    print("all quick starts of the README work")
    return 0


sys.exit(main())
