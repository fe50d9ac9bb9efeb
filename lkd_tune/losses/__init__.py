"""The loss terms, as functions of hidden states and logits; they know no trial and no model."""
