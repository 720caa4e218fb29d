"""Small models with random weights, saved as their frameworks save them.

All in bf16 and from a fixed seed; sides are multiples of 64, most of 128, because some formats leave others dense. One
weight of each has a row of zeros and an outlier.
"""

import json

import torch
import transformers
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel

VOCABULARY = 512


def spoil(weight):
    with torch.no_grad():
        weight[0] = 0
        weight[2, 3] = 2.0


def decoder(config, **arguments):
    return config(vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                  head_dim=64, max_position_embeddings=64, **arguments)


def configurations():
    """By the models' names, each with the class that loads it."""
    return {
        "llama": (transformers.AutoModelForCausalLM,
                  decoder(transformers.LlamaConfig, intermediate_size=512, tie_word_embeddings=True)),
        "qwen2": (transformers.AutoModelForCausalLM, decoder(transformers.Qwen2Config, intermediate_size=512)),
        "bert": (transformers.AutoModelForMaskedLM, transformers.BertConfig(
            vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=2, num_attention_heads=4, intermediate_size=512,
            max_position_embeddings=64)),
        "t5": (transformers.AutoModelForSeq2SeqLM, transformers.T5Config(
            vocab_size=VOCABULARY, d_model=256, d_kv=64, d_ff=512, num_layers=2, num_heads=4, decoder_start_token_id=0)),
        "mixtral": (transformers.AutoModelForCausalLM, decoder(
            transformers.MixtralConfig, intermediate_size=256, num_local_experts=2, num_experts_per_tok=2)),
        # Its experts are stored together, in 3-D tensors. All are used: a rounding must not send a token to another one.
        "gpt-oss": (transformers.AutoModelForCausalLM, decoder(
            transformers.GptOssConfig, intermediate_size=256, num_local_experts=2, num_experts_per_tok=2,
            layer_types=["sliding_attention", "full_attention"])),
        "llama4": (transformers.AutoModelForCausalLM, decoder(
            transformers.Llama4TextConfig, intermediate_size=256, intermediate_size_mlp=512, num_local_experts=2,
            num_experts_per_tok=2, pad_token_id=0)),
    }


def make_models(folder):
    """Saves all of them below `folder`; returns the class that loads each, by name."""
    classes = {}
    for name, (auto_class, config) in configurations().items():
        torch.manual_seed(1)
        model = auto_class.from_config(config, dtype=torch.bfloat16)
        spoil(next(weight for key, weight in model.named_parameters()
                   if key.endswith(("q_proj.weight", "query.weight", ".q.weight"))))
        model.save_pretrained(folder / name)
        classes[name] = auto_class
    return classes


def make_pipeline(folder):
    """A Qwen-Image pipeline of a transformer and a scheduler."""
    torch.manual_seed(1)
    transformer = QwenImageTransformer2DModel(
        num_layers=2, attention_head_dim=64, num_attention_heads=8, joint_attention_dim=512, axes_dims_rope=(16, 24, 24)).to(
            torch.bfloat16)
    spoil(transformer.transformer_blocks[0].attn.to_q.weight)
    transformer.save_pretrained(folder / "transformer")
    FlowMatchEulerDiscreteScheduler().save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({
        "_class_name": "QwenImagePipeline", "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "transformer": ["diffusers", "QwenImageTransformer2DModel"]}))


def text_inputs(name):
    tokens = torch.randint(3, VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(2))
    return {"input_ids": tokens, "decoder_input_ids": tokens[:, :12]} if name == "t5" else {"input_ids": tokens}


def image_inputs(dtype):
    random = torch.Generator().manual_seed(2)
    return {"hidden_states": torch.randn(1, 16, 64, generator=random).to(dtype),
            "encoder_hidden_states": torch.randn(1, 8, 512, generator=random).to(dtype),
            "encoder_hidden_states_mask": torch.ones(1, 8, dtype=torch.long),
            "timestep": torch.tensor([0.5], dtype=dtype), "img_shapes": [[(1, 4, 4)]], "return_dict": False}
