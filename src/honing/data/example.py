"""Example: one row of instruction data, whatever file and columns it came from."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Exchange:
    """One question and its answer. `input` is the optional material of the question."""

    instruction: str
    output: str
    input: str = ""


@dataclass(frozen=True)
class Example:
    """One row: usually a single exchange, several for a chat.

    `id` is stable over runs and unique within a data set: `FILE:ROW`. `row` counts from 1, as
    editors do. `group` joins rows that must not be parted between training and validation.
    """

    id: str
    exchanges: tuple[Exchange, ...]
    system: str = ""
    group: str | None = None
    row: int = 0

    @property
    def prompt_text(self) -> str:
        """All that is asked, without the last answer: what near-duplicates are looked for in."""
        parts = [self.system]
        for number, exchange in enumerate(self.exchanges, start=1):
            parts += [exchange.instruction, exchange.input]
            if number < len(self.exchanges):
                parts.append(exchange.output)
        return "\n".join(part for part in parts if part)

    @property
    def response_text(self) -> str:
        """The last answer."""
        return self.exchanges[-1].output

    def without_oldest_exchange(self) -> Example:
        """A chat that has lost its first question and answer; the system text stays."""
        return replace(self, exchanges=self.exchanges[1:])
