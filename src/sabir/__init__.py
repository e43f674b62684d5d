"""sabir: one LoRA adapter per language, merged into one model."""

__version__ = "0.1.0"
