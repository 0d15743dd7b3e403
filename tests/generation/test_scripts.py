"""The script lock: no character of another script comes out, half characters included."""

from __future__ import annotations

import unicodedata
from functools import partial
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from honing.config import GenerateConfig
from honing.data.scripts import script_of
from honing.errors import UserError
from honing.generation.answer import answer_questions, encode_for_answering
from honing.generation.decode import Ends, decode_batch
from honing.generation.open_model import OpenModel
from honing.generation.scripts import ScriptLock, can_complete, may_stand, script_lock
from honing.model.token_bytes import token_bytes
from tests.runs import tiny_text
from tests.tiny import example, tiny_model

ALLOWED = ("hangul", "latin")
HANGUL = frozenset({"hangul", "latin"})
BYTES = [bytes([number]) for number in range(256)]


def opened() -> OpenModel:
    return OpenModel(tiny_model("llama"), tiny_text(), "cpu", None)


def settings(**changes: Any) -> GenerateConfig:
    plain = {"max_new_tokens": 10, "temperature": 1.5, "batch_size": 128, "num_answers": 250}
    return GenerateConfig(**{**plain, **changes})


def texts(model: OpenModel, wanted: GenerateConfig) -> list[str]:
    rows = [example(question, "") for question in ("대한민국은?", "hi", "2 + 3", "漢字?")]
    questions = encode_for_answering(model, rows, wanted)
    return [answer.text for answer in answer_questions(model, questions, wanted)[0]]


def foreign(text: str) -> list[str]:
    """Characters that the lock must keep out, told without it."""
    return [c for c in text if script_of(c) not in (None, *ALLOWED) or c == "\ufffd"]


def test_a_thousand_sampled_answers_hold_no_other_script() -> None:
    model = opened()
    free, locked = texts(model, settings()), texts(model, settings(scripts=list(ALLOWED)))
    assert len(free) == len(locked) == 1000
    assert sum(bool(foreign(text)) for text in free) > 100, "the free model writes others"
    assert [text for text in locked if foreign(text)] == []
    assert sum(map(len, locked)) > 1000
    assert any(script_of(c) == "hangul" for text in locked for c in text)


def test_what_was_allowed_anyway_is_not_changed() -> None:
    """Greedy ids are those of the free model up to its first token that may not follow."""
    model = opened()
    wanted = settings(temperature=0.0, num_answers=1, scripts=list(ALLOWED))
    lock = script_lock(model.text, wanted, (0,))
    assert lock is not None
    rows = [
        example(question, "") for question in ("대한민국은?", "hi", "2 + 3", "서울", "a b", "물")
    ]
    ids = [row.ids for row in encode_for_answering(model, rows, wanted)]
    seeds = range(len(ids))
    free = decode_batch(model.model, ids, wanted, Ends((0,)), seeds)
    locked = decode_batch(model.model, ids, wanted, Ends((0,)), seeds, lock=lock)
    lengths = []
    for a, b in zip(free, locked, strict=True):
        state, num_same = b"", 0
        for token in a.ids:
            after = lock.follow(state, token)
            if after is None:
                break
            state, num_same = after, num_same + 1
        assert b.ids[:num_same] == a.ids[:num_same]
        assert num_same == len(a.ids) or b.ids[num_same] != a.ids[num_same]
        lengths.append(num_same)
    assert max(lengths) > 0
    assert min(lengths) < wanted.max_new_tokens


def test_off_by_default_and_refused_without_known_bytes() -> None:
    assert script_lock(tiny_text(), GenerateConfig(), (0,)) is None
    text = tiny_text()
    blind = type(text)(text.name, text.encoder, text.decode, text.template)
    with pytest.raises(UserError, match=r"generate.scripts: the tokenizer of tiny does not tell"):
        script_lock(blind, GenerateConfig(scripts=["hangul"]), (0,))


@pytest.mark.parametrize(
    "character", ["가", "힣", "a", "é", "1", " ", "。", "漢", "あ", "Ж", "🙂", "α"]
)
def test_each_character_byte_by_byte(character: str) -> None:
    """Over a vocabulary of the 256 bytes a character gets through exactly if it may stand."""
    lock = ScriptLock(BYTES, HANGUL, ())
    state: bytes | None = b""
    for number in character.encode():
        assert state is not None
        mask = lock.mask(torch.zeros(1, 256), [state])[0]
        state = lock.follow(state, number)
        assert bool(torch.isfinite(mask[number])) == (state is not None)
        if state is None:
            break
    assert (state == b"") == may_stand(character, HANGUL)


def test_a_mask_is_that_of_trying_every_token() -> None:
    lock = ScriptLock(BYTES, HANGUL, (7,))
    for unfinished in (b"", b"\xea", b"\xea\xb0", b"\xc3", b"\xf0", b"\xf0\x9f", b"\xe4"):
        mask = lock.mask(torch.zeros(1, 256), [unfinished])[0]
        for token in range(256):
            data = unfinished + bytes([token])
            try:
                whole = all(may_stand(c, HANGUL) for c in data.decode())
            except UnicodeDecodeError as error:
                starts = error.reason == "unexpected end of data" and error.end == len(data)
                before = data[: error.start].decode()
                whole = (
                    starts
                    and all(may_stand(c, HANGUL) for c in before)
                    and can_complete(data[error.start :], HANGUL)
                )
            if token != 7:
                assert bool(torch.isfinite(mask[token])) == whole, (unfinished, token)
            else:
                assert torch.isfinite(mask[token]), "what ends an answer may always follow"


def test_beginnings_of_characters() -> None:
    assert can_complete("가".encode()[:1], HANGUL)
    assert not can_complete("漢".encode()[:2], HANGUL)
    assert can_complete("漢".encode()[:2], HANGUL | {"han"})
    for script, character in (("kana", "あ"), ("cyrillic", "Ж"), ("thai", "ก")):
        assert may_stand(character, frozenset({script}))
        assert not may_stand(character, HANGUL)
    assert unicodedata.category("\ue000") == "Co"
    assert not may_stand("\ue000", HANGUL)


def byte_fallback_tokenizer() -> Any:
    """As SentencePiece makes them: words with ▁, and <0xNN> for what has no token."""
    vocabulary = {"<unk>": 0, "</s>": 1}
    for number in range(256):
        vocabulary[f"<0x{number:02X}>"] = len(vocabulary)
    for word in ("▁", "▁안녕", "하세요", "漢字", "▁hi", "Ж"):
        vocabulary[word] = len(vocabulary)
    inner = Tokenizer(
        models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True)
    )
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>")


def test_a_vocabulary_with_byte_fallback() -> None:
    tokenizer = byte_fallback_tokenizer()
    known = partial(token_bytes, tokenizer)()
    assert known is not None
    ids = tokenizer.get_vocab()
    assert known[ids["▁안녕"]].decode() == " 안녕"
    assert known[ids["<0xEA>"]] == b"\xea"
    lock = ScriptLock(known, HANGUL, (ids["</s>"],))
    mask = lock.mask(torch.zeros(1, len(known)), [b""])[0]
    allowed = {word for word in ("▁안녕", "하세요", "漢字", "▁hi", "Ж") if mask[ids[word]] == 0}
    assert allowed == {"▁안녕", "하세요", "▁hi"}
    assert mask[ids["<0xEA>"]] == 0
    assert mask[ids["<0xD0>"]] == -torch.inf, "begins Cyrillic alone"


def test_the_packaged_vocabulary(packaged_model: str) -> None:
    from honing.config import ModelConfig
    from honing.model.load import find_base, load_tokenizer

    tokenizer = load_tokenizer(find_base(ModelConfig(base=packaged_model)))
    known = token_bytes(tokenizer)
    assert known is not None
    lock = ScriptLock(known, HANGUL, (tokenizer.eos_token_id,))
    mask = lock.mask(torch.zeros(1, len(known)), [b""])[0]
    for token in range(0, len(known), 7):
        text = known[token].decode("utf-8", "replace")
        if text and "\ufffd" not in text and token != tokenizer.eos_token_id:
            assert bool(mask[token] == 0) == all(may_stand(c, HANGUL) for c in text), text
