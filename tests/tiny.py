"""Tiny random models and a tokenizer trained in the test's own process: nothing is downloaded."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from honing.config import LoraConfig, TrainConfig
from honing.data.encode import TextEncoder, Tokens, encode_prompts
from honing.data.example import Example, Exchange
from honing.data.template import choose_template, render
from honing.model.load import text_encoder
from honing.model.lora import attach_lora

# Products this small are done before a second thread wakes up; on a busy machine, ten times slower.
torch.set_num_threads(1)

ARCHITECTURES = ("gpt2", "llama", "qwen", "gemma", "gpt_neox")

SPECIAL_TOKENS = ["<|end|>", "<|im_start|>", "<|im_end|>"]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_WORDS = [
    "### Instruction:\n대한민국의 수도는 어디인가요?\n\n"
    "### Response:\n대한민국의 수도는 서울입니다.",
    "### Input:\n안녕하세요. 오늘 날씨가 좋네요.\n\nThe quick brown fox jumps over the lazy dog.",
    "### 질문: 물은 몇 도에서 끓나요?\n\n### 답변: 물은 섭씨 100도에서 끓습니다. 0123456789",
]


@functools.cache
def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer of 320 tokens; EOS is <|end|>, there is no pad token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_WORDS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", model_input_names=["input_ids"]
    )


def tiny_encoder() -> TextEncoder:
    return text_encoder(tiny_tokenizer())


def tiny_model(architecture: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A model of some 50,000 parameters, with weights large enough that its layers matter."""
    torch.manual_seed(seed)
    common = {"vocab_size": 320, "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 0}
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
    }
    grouped = {"num_key_value_heads": 2, "head_dim": 8}
    if architecture == "gpt2":
        config = GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256, **common)
        model = GPT2LMHeadModel(config)
    elif architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shape, **grouped, **common))
    elif architecture == "qwen":
        model = Qwen3ForCausalLM(Qwen3Config(**shape, **grouped, **common))
    elif architecture == "gemma":
        config = Gemma3TextConfig(
            **shape,
            **grouped,
            **common,
            pad_token_id=0,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention"],
        )
        model = Gemma3ForCausalLM(config)
    elif architecture == "gpt_neox":
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**shape, **common))
    else:
        raise ValueError(architecture)
    return model.to(dtype).eval()


def save_tiny_base(
    folder: Path, architecture: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float32
) -> Path:
    """A folder that `model.base` can name: weights, configuration, tokenizer."""
    tiny_model(architecture, dtype, seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def example(instruction: str, output: str, input: str = "", row: int = 1) -> Example:
    return Example(f"rows:{row}", (Exchange(instruction, output, input),), row=row)


def encoded(pairs: Sequence[tuple[str, str]], max_length: int = 128) -> list[Tokens]:
    """Question and answer pairs in the template `instruction`, encoded by the tiny tokenizer."""
    template = choose_template("instruction", None)
    prompts = [
        render(example(question, answer, row=row), template, "response")
        for row, (question, answer) in enumerate(pairs, start=1)
    ]
    rows = encode_prompts(prompts, tiny_encoder(), max_length)
    assert all(isinstance(row, Tokens) for row in rows)
    return [row for row in rows if isinstance(row, Tokens)]


PAIRS = [
    ("대한민국의 수도는 어디인가요?", "서울입니다."),
    ("물은 몇 도에서 끓나요?", "물은 섭씨 100도에서 끓습니다."),
    ("hi", "Hello there, how are you?"),
    ("오늘 날씨가 어때요?", "좋네요."),
    ("2 + 3", "5"),
    ("The quick brown fox", "jumps over the lazy dog"),
    ("안녕하세요", "안녕하세요. 반갑습니다."),
    ("숫자를 세어 보세요", "0 1 2 3 4 5 6 7 8 9"),
]


def adapted_model(
    architecture: str, dtype: torch.dtype = torch.float32, *, seed: int = 0, **settings: Any
) -> Any:
    """A tiny model with adapters that matter: lora_B is not zero, so lora_A has gradients too."""
    base = tiny_model(architecture, dtype, seed)
    switch_off_dropout(base)
    model = attach_lora(base, LoraConfig(**{"dropout": 0.0, **settings}), seed)
    fill_lora_b(model)
    return model


def switch_off_dropout(model: Any) -> None:
    """GPT-2's own, as load_model does."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def fill_lora_b(model: Any, seed: int = 5) -> None:
    """Random values in every lora_B, the same ones in each number type."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data.copy_(values * 0.1)


def train_settings(**changes: Any) -> TrainConfig:
    """A training without "auto" in it."""
    resolved = {
        "micro_batch_size": 8,
        "packing": False,
        "packed_row_tokens": 512,
        "gradient_checkpointing": False,
    }
    return TrainConfig(**{**resolved, **changes})
