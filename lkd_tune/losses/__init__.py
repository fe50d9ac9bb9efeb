"""The loss terms: functions of hidden states and logits, independent of trials and models."""
