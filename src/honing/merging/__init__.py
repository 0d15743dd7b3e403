"""LoRA into its base: merge in float64, write, read back from disk, compare, then keep."""
