"""GGUF headers: those of gguf's own writer are possible, and what they may not say."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy
import pytest

from honing.model.gguf_header import Impossible, check_header

gguf = pytest.importorskip("gguf")


def i(number: int) -> bytes:
    return struct.pack("<I", number)


def q(number: int) -> bytes:
    return struct.pack("<Q", number)


def text(content: bytes) -> bytes:
    return q(len(content)) + content


def header(num_tensors: int, num_keys: int, *parts: bytes) -> bytes:
    return b"GGUF" + i(3) + q(num_tensors) + q(num_keys) + b"".join(parts)


def tensor(name: bytes, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + i(len(shape)) + b"".join(map(q, shape)) + i(kind) + q(offset)


def problem_of(content: bytes, folder: Path) -> str | None:
    path = folder / "x.gguf"
    path.write_bytes(content)
    try:
        check_header(path)
    except Impossible as error:
        return str(error)
    return None


def written(folder: Path, **sizes: int) -> bytes:
    """A file of gguf's own writer, with every kind of value and a quantised tensor."""
    writer = gguf.GGUFWriter(folder / "w.gguf", "llama")
    writer.add_context_length(10**6)
    writer.add_block_count(sizes.get("block_count", 2))
    writer.add_embedding_length(sizes.get("embedding_length", 64))
    writer.add_feed_forward_length(sizes.get("feed_forward_length", 64))
    writer.add_head_count(sizes.get("head_count", 4))
    writer.add_token_list(["a", "가", ""])
    writer.add_token_scores([1.0, 2.0, 3.0])
    writer.add_array("numbers", [1, 2, 3])
    writer.add_array("lists", [[1, 2], [3]])
    writer.add_bool("yes", True)
    writer.add_float64("f", 1.5)
    writer.add_int8("small", -3)
    writer.add_tensor("token_embd.weight", numpy.zeros((3, 64), dtype=numpy.float32))
    quantised = gguf.quants.quantize(
        numpy.ones((2, 64), dtype=numpy.float32), gguf.GGMLQuantizationType.Q8_0
    )
    writer.add_tensor("q", quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return (folder / "w.gguf").read_bytes()


def test_a_file_of_ggufs_own_writer(tmp_path: Path) -> None:
    content = written(tmp_path)
    assert problem_of(content, tmp_path) is None
    assert len(gguf.GGUFReader(tmp_path / "w.gguf").tensors) == 2


def test_a_file_that_was_cut_short(tmp_path: Path) -> None:
    content = written(tmp_path)
    for length in range(0, len(content) - 32, 7):
        assert problem_of(content[:length], tmp_path) is not None, length


@pytest.mark.parametrize(
    ("sizes", "problem"),
    [
        ({"block_count": 2**31}, "it says block_count 2,147,483,648, and its tensors are smaller"),
        ({"embedding_length": 65}, "it says embedding_length 65, and its tensors are smaller"),
        ({"feed_forward_length": 10**6}, "it says feed_forward_length 1,000,000, and its tensors"),
        ({"head_count": 10**6}, "it says head_count 1,000,000, and its tensors are smaller"),
    ],
)
def test_a_model_that_is_larger_than_its_tensors(
    sizes: dict[str, int], problem: str, tmp_path: Path
) -> None:
    assert str(problem_of(written(tmp_path, **sizes), tmp_path)).startswith(problem)


MUCH = 2**64 - 1
ENDS = "it ends before its header does"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", ENDS),
        (b"GGML" + bytes(30), "it does not begin as a GGUF file does"),
        (b"GGUF" + i(1) + bytes(30), "it is of version 1; versions 2 and 3 are read"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(30), "it is of version 50331648; versions 2 and"),
        (header(0, MUCH), ENDS),
        (header(MUCH, 0), ENDS),
        (header(0, 1, q(MUCH)), ENDS),
        (header(0, 1, text(b"a"), i(9), i(4), q(MUCH)), ENDS),
        (header(0, 1, text(b"a"), i(9), i(8), q(MUCH)), ENDS),
        (header(0, 1, text(b"a"), i(9), *[i(9) + q(1)] * 5), "it nests lists too deeply"),
        (header(0, 1, text(b"a"), i(99)), "it holds a value of unknown kind 99"),
        (header(1, 0, text(b"t"), i(2**32 - 1)), "a tensor has 4294967295 dimensions"),
        (header(1, 0, tensor(b"t", (2**40, 2**40))), "its tensors are larger than the file"),
        (header(1, 0, tensor(b"t", (1,), offset=MUCH)), "its tensors are larger than the file"),
        (header(1, 0, tensor(b"t", (1,), kind=999)), "a tensor is of unknown kind 999"),
        (header(0, 1, text(b"general.alignment"), i(4), i(0)), "it is aligned to 0 bytes"),
        (header(0, 1, text(b"general.alignment"), i(4), i(3)), "it is aligned to 3 bytes"),
    ],
)
def test_what_cannot_be(content: bytes, problem: str, tmp_path: Path) -> None:
    assert str(problem_of(content, tmp_path)).startswith(problem)


def test_texts_are_not_longer_together_than_a_converter_can_bear(tmp_path: Path) -> None:
    template = header(0, 1, text(b"t"), i(8), text(b"a" * 100_000))
    assert problem_of(template, tmp_path) is None
    tokens = [text(b"a" * 20_000)] * 3
    content = header(0, 1, text(b"t"), i(9), i(8), q(3), *tokens)
    assert problem_of(content, tmp_path) == "its tokens are longer than any vocabulary's"


def test_tensors_may_not_share_bytes_to_be_more_than_the_file(tmp_path: Path) -> None:
    tensors = [tensor(b"t%d" % n, (64,)) for n in range(8)]
    content = header(8, 0, *tensors)
    content += bytes(32 + 300)
    assert problem_of(content, tmp_path) == (
        "its tensors are larger than the file; was it cut short?"
    )
