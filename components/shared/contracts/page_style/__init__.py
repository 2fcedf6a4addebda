"""The style sheet that all pages of steps share."""
