"""The stage behind `honing prepare`: rows read, checked, split, audited and reported."""

from __future__ import annotations

import json
from pathlib import Path

from honing.config import Config
from honing.data.prepare import PreparedData, prepare_data, split_records
from honing.data.template import choose_template
from honing.errors import UserError
from honing.model.load import find_base, load_tokenizer, text_model
from honing.run import RunFolder, write_json, write_text


def prepare(config: Config) -> PreparedData:
    """Prepare the data of a configuration and write data_report.json and splits/.

    Only the base's tokenizer is loaded. Raises UserError where the folder holds a run already.
    """
    run = RunFolder(Path(config.output_dir).expanduser())
    if run.holds_a_run():
        raise UserError(
            f"output_dir: {run.root} holds a training already, and its data report must stay; "
            "choose another output_dir"
        )
    base = find_base(config.model)
    tokenizer = load_tokenizer(base)
    template = choose_template(config.data.template, tokenizer.chat_template)
    data = prepare_data(config.data, config.seed, text_model(base, tokenizer, template))
    write_data(run, data)
    return data


def write_data(run: RunFolder, data: PreparedData) -> None:
    """data_report.json, and the rows of each split as they were dealt."""
    write_json(run.data_report, data.report.to_record())
    for name, split in data.splits.items():
        if split.examples:
            records = split_records(split.examples)
            lines = [json.dumps(record, ensure_ascii=False) for record in records]
            write_text(run.split_file(name), "\n".join(lines) + "\n")
        else:
            run.split_file(name).unlink(missing_ok=True)
