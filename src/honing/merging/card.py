"""The short README.md of a merged folder, where no model card was made for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from honing.version import VERSION


def default_card(about: Mapping[str, Any], dtype: str) -> str:
    """A card in the Hub's format. about: honing.json of the merged folder."""
    base, source = about["base"], about["merged_from"]
    bits = ", its 4-bit weights (NF4) expanded" if base.get("expanded_from_4bit") else ""
    return f"""\
---
base_model: {_yaml(base["name"])}
library_name: transformers
pipeline_tag: text-generation
tags:
- lora
- merged
- honing
---

# {source["run"]}

A LoRA adapter, merged into its base and verified by honing {VERSION}.

- Base: `{base["name"]}`, fingerprint `{base["fingerprint"][:16]}`{bits}
- Adapter: `{source["checkpoint"]}` of `{source["run"]}`, SHA-256 `{source["adapter_sha256"][:16]}`
- Merged in float64 and stored as {dtype}; `merge_report.json` holds what was checked

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")
tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
chat = [{{"role": "user", "content": "…"}}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
answer = model.generate(**inputs, max_new_tokens=256)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```

The licences of base and data hold for this model too.
"""


def _yaml(text: str) -> str:
    """A text as a YAML scalar: in double quotes, with JSON's escapes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
