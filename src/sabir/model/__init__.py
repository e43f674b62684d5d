"""What touches a language model: the only place that imports transformers and peft."""
