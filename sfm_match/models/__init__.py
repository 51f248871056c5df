"""Networks: functions of tensors, no files but checkpoints."""
