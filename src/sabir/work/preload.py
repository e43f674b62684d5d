"""Imported once by the fork server, so that no worker pays for it."""

import accelerate  # noqa: F401
import peft  # noqa: F401
import scipy.special  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments  # noqa: F401

import sabir.metrics
import sabir.model.generate
import sabir.model.likelihood
import sabir.model.train
import sabir.work.outputs  # noqa: F401
