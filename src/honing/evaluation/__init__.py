"""Did it get better? Per-example statistics first, numbers and intervals later."""
