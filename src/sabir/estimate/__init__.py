"""Quality without labels: the error of a model on texts nobody has labelled, from plain arrays."""
