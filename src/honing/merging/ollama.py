"""The Modelfile beside a GGUF file: template, stop texts and way of answering, for Ollama."""

from __future__ import annotations

import json
from collections.abc import Sequence

from honing.config import GenerateConfig
from honing.data.text_model import TextModel
from honing.errors import UserError
from honing.merging.chat_text import ollama_template

MODELFILE = "Modelfile"


def modelfile(
    gguf_name: str,
    text: TextModel,
    settings: GenerateConfig,
    *,
    eos_token: str,
    bos_token: str | None,
    end_tokens: Sequence[str],
) -> str:
    """Ollama's own defaults draw at temperature 0.8 with a penalty of 1.1; here answers are made
    as the run's generate section says."""
    template = ollama_template(text, eos_token, bos_token)
    if '"""' in template:
        raise UserError('--gguf: a template with """ in it cannot stand in a Modelfile')
    lines = [
        f"FROM ./{gguf_name}",
        f'TEMPLATE """{template}"""',
        *(
            f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}"
            for stop in dict.fromkeys([*end_tokens, *settings.stop])
        ),
        f"PARAMETER temperature {settings.temperature:g}",
        f"PARAMETER repeat_penalty {settings.repetition_penalty:g}",
        f"PARAMETER num_predict {settings.max_new_tokens}",
        f"PARAMETER seed {settings.seed}",
    ]
    if settings.temperature > 0:
        lines += [f"PARAMETER top_p {settings.top_p:g}", f"PARAMETER top_k {settings.top_k}"]
    return "\n".join(lines) + "\n"
