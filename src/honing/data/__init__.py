"""From the user's rows to token ids: Example, Prompt, Tokens, Row, each from the one before."""
