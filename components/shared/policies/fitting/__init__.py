"""Fits of all kinds of policies on VAL_CALIB, from logits to a policy or the reason for none."""
