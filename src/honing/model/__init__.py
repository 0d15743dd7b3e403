"""The base model, its adapter, and what the machine can hold."""
