"""Training: optimizers, schedules, averages, and the loop over the steps."""
