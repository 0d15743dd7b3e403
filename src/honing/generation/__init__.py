"""Answers from a base or tuned model: one, many, or streamed."""
