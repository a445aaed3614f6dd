"""Known-wrong answers that the checks must reject and name, and other right ones that they must accept."""
