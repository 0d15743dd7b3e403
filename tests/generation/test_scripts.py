"""The script lock: no character of another script comes out, half characters included."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from honing.config import GenerateConfig, ModelConfig
from honing.config_file import load_config
from honing.data.scripts import script_of
from honing.errors import UserError
from honing.generation.answer import answer_questions, encode_for_answering
from honing.generation.chat import reply
from honing.generation.decode import Ends, decode_batch
from honing.generation.generate import generate
from honing.generation.open_model import OpenModel
from honing.generation.questions import question_from_text
from honing.generation.scripts import ScriptLock, can_complete, may_stand, script_lock
from honing.model.load import find_base, load_tokenizer, text_encoder
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


# --- vocabularies of other kinds


def byte_fallback_tokenizer() -> Any:
    """As SentencePiece makes them: words with ▁, and <0xNN> for what has no token."""
    words = ("▁", "▁안녕", "하세요", "漢字", "▁hi", "Ж", "かな", "▁中", "。", "ไทย")
    names = ["</s>", "<unk>", *(f"<0x{number:02X}>" for number in range(256)), *words]
    vocabulary = {name: number for number, name in enumerate(names)}
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
    known = token_bytes(tokenizer)
    assert known is not None
    ids = tokenizer.get_vocab()
    assert known[ids["▁안녕"]].decode() == " 안녕"
    assert known[ids["<0xEA>"]] == b"\xea"
    lock = ScriptLock(known, HANGUL, (ids["</s>"],))
    mask = lock.mask(torch.zeros(1, len(known)), [b""])[0]
    allowed = {word for word in ids if not word.startswith("<") and mask[ids[word]] == 0}
    assert allowed == {"▁", "▁안녕", "하세요", "▁hi", "。"}
    assert mask[ids["<0xEA>"]] == 0
    assert mask[ids["<0xD0>"]] == -torch.inf, "begins Cyrillic alone"


def test_a_thousand_sampled_answers_with_byte_fallback() -> None:
    tokenizer = byte_fallback_tokenizer()
    text = replace(
        tiny_text(),
        encoder=text_encoder(tokenizer),
        decode=lambda ids: str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)),
        token_bytes=partial(token_bytes, tokenizer),
    )
    model = OpenModel(tiny_model("llama"), text, "cpu", None)
    free, locked = texts(model, settings()), texts(model, settings(scripts=list(ALLOWED)))
    assert len(free) == len(locked) == 1000
    assert sum(any(c in "漢字Жかな中ไทย" for c in text) for text in free) > 100
    assert [text for text in locked if foreign(text)] == []
    assert sum(bool(text) for text in locked) > 500


def beginnings(scripts: frozenset[str]) -> set[bytes]:
    """The first bytes of every character that may stand."""
    whole = (chr(code).encode() for code in range(0x80, 0x110000) if may_stand(chr(code), scripts))
    return {data[:length] for data in whole for length in range(1, len(data))}


def check_masks(tokenizer: Any) -> None:
    """Every token in some states, against the whole of Unicode and Python's own decoder."""
    known = token_bytes(tokenizer)
    assert known is not None
    end = tokenizer.eos_token_id
    lock = ScriptLock(known, HANGUL, (end,))
    begun = beginnings(HANGUL)

    def may_follow(data: bytes) -> bool:
        for cut in range(4):
            whole, rest = data[: len(data) - cut], data[len(data) - cut :]
            try:
                text = whole.decode()
            except UnicodeDecodeError:
                continue
            if rest and rest not in begun:
                continue
            return all(may_stand(character, HANGUL) for character in text)
        return False

    V = len(known)
    for unfinished in (b"", b"\xed", b"\xed\x95", b"\xe2\x80", b"\xe3", b"\xf0\x9f", b"\xc3"):
        allowed = torch.isfinite(lock.mask(torch.zeros(1, V), [unfinished])[0]).tolist()
        expected = [token == end or may_follow(unfinished + known[token]) for token in range(V)]
        assert allowed == expected, unfinished
        assert 1 < sum(allowed) < V


def test_every_token_of_the_packaged_vocabulary(packaged_model: str) -> None:
    check_masks(load_tokenizer(find_base(ModelConfig(base=packaged_model))))


def test_every_token_of_gpt2(shared: Path) -> None:
    check_masks(AutoTokenizer.from_pretrained(shared / "models" / "gpt2-tokenizer"))


def test_no_character_is_begun_that_the_vocabulary_cannot_complete() -> None:
    # EA B0 B0 is 갰, C3 B0 is ð; E1 B0 B0 is a letter of Lepcha, and without B0 nothing ends.
    tokens = [b"\xea", b"\xea\xb0", b"\xc3", b"\xe1", b"\xc4\x80"]
    lock = ScriptLock([*tokens, b"\xb0"], HANGUL, ())
    followed = [lock.follow(b"", token) for token in range(5)]
    assert followed == [b"\xea", b"\xea\xb0", b"\xc3", None, b""]
    lock = ScriptLock(tokens, HANGUL, ())
    assert [lock.follow(b"", token) for token in range(5)] == [None, None, None, None, b""]


def test_ids_beyond_the_tokenizer_write_nothing_and_may_follow() -> None:
    lock = ScriptLock(BYTES, HANGUL, ())
    for unfinished in (b"", b"\xea\xb0"):
        mask = lock.mask(torch.zeros(1, 260), [unfinished])[0]
        assert torch.isfinite(mask[256:]).all()
        assert lock.follow(unfinished, 258) == unfinished


def test_scripts_that_a_vocabulary_cannot_write_are_refused() -> None:
    with pytest.raises(UserError) as error:
        ScriptLock([b"a", b"bc", b"</s>"], frozenset({"thai"}), (2,))
    assert str(error.value) == (
        "generate.scripts: no token of this model writes in these scripts; allow more"
    )


# --- with the other settings


def test_an_end_that_comes_too_early_leaves_other_tokens() -> None:
    wanted = settings(scripts=list(ALLOWED), min_new_tokens=10, num_answers=25, top_k=5, top_p=0.9)
    model = opened()
    rows = encode_for_answering(model, [example("대한민국은?", "")], wanted)
    answers, _ = answer_questions(model, rows, wanted)
    assert {answer.num_tokens for answer in answers} == {10}
    assert [answer for answer in answers if foreign(answer.text)] == []


def test_a_stop_text_still_ends_an_answer() -> None:
    model = opened()
    wanted = settings(scripts=list(ALLOWED), stop=["e"], num_answers=50, max_new_tokens=40)
    rows = encode_for_answering(model, [example("hi", "")], wanted)
    answers, _ = answer_questions(model, rows, wanted)
    stopped = {answer.stopped for answer in answers}
    assert "stop text" in stopped
    assert [answer for answer in answers if "e" in answer.text or foreign(answer.text)] == []


def test_chat_keeps_to_the_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    def replies(**changes: Any) -> list[str]:
        model = opened()
        drawn = [settings(max_new_tokens=30, seed=seed, **changes) for seed in range(20)]
        answers = [reply(model, one, [], "안녕").answer for one in drawn]
        assert capsys.readouterr().out == "".join(f"{answer}\n" for answer in answers)
        return answers

    assert any(foreign(answer) for answer in replies())
    assert [answer for answer in replies(scripts=list(ALLOWED)) if foreign(answer)] == []


def test_a_configuration_sets_the_lock(tiny_base: Path) -> None:
    drawn = ["generate.temperature=1.5", "generate.num_answers=40", "generate.max_new_tokens=12"]

    def scripts(*overrides: str) -> set[str | None]:
        config = load_config(None, [f"model.base={tiny_base}", "device=cpu", *drawn, *overrides])
        made = generate(str(tiny_base), [question_from_text("hi")], config)
        return {script_of(c) for answer in made.answers for c in answer.text if c != "\ufffd"}

    assert {"hangul", "latin"} < scripts()
    assert scripts("generate.scripts=[hangul]") <= {"hangul", None}
    assert scripts("generate.scripts=[]") <= {None}
