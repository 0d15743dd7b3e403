"""Evaluations side by side: on the terminal, as Markdown, as a page, as a model card. No torch."""
