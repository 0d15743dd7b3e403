"""From token ids to a tuned adapter: loss, schedule, the loop, checkpoints, what is shown."""
