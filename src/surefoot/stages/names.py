"""TRL's names of things that are ours to decide. No torch in here."""

from collections.abc import Mapping

SYNONYMS: Mapping[str, str] = {
    "model_name_or_path": "model_name",
    "dataset_name": "dataset",
    "dataset_text_field": "text_column",
    "chat_template_path": "chat_template",
    "max_length": "max_tokens",
    "per_device_train_batch_size": "mini_batch_size",
    "lr_scheduler_type": "lr_schedule",
    "num_train_epochs": "epochs",
    "max_steps": "steps",
    "eval_steps": "eval_every",
    "save_steps": "save_every",
    "save_total_limit": "keep_checkpoints",
    "report_to": "log_with",
}
"""TRL's name of something that has a name here -> that name; it is taken where ours is not given too."""

_ALONE = "nothing: a stage runs in one process"
_OURS = "nothing: every step is recorded in the run's folder"
_NO_PUSH = "nothing: the trained model is a folder, push it with `hf upload`"
_SAME_COMMAND = "nothing: the same command goes on with its run"

RETIRED: Mapping[str, str] = {
    "gradient_accumulation_steps": "batch_size (rows of an optimizer step) and mini_batch_size (rows of a pass)",
    "activation_checkpointing": "gradient_checkpointing",
    "bf16": "precision='bfloat16'",
    "fp16": "precision='bfloat16' (float16 is not offered: it overflows)",
    "bf16_full_eval": "precision='bfloat16'",
    "fp16_full_eval": "precision='bfloat16'",
    "tf32": "precision",
    "warmup_ratio": "warmup_steps",
    "eval_strategy": "eval_every",
    "eval_on_start": "nothing: there is an evaluation before the first step wherever rows are held out",
    "eval_delay": "eval_every",
    "save_strategy": "save_every",
    "logging_strategy": _OURS,
    "logging_steps": _OURS,
    "logging_first_step": _OURS,
    "logging_nan_inf_filter": "nothing: a loss that is not finite ends the run",
    "log_level": _OURS,
    "disable_tqdm": _OURS,
    "run_name": "output_dir (its last part names the run)",
    "model_init_kwargs": "precision; a model is loaded as it is",
    "trust_remote_code": "nothing: code that lies beside a model is never run",
    "do_train": "nothing: a stage trains",
    "do_eval": "eval_rows or eval_dataset",
    "do_predict": "eval_rows or eval_dataset",
    "resume_from_checkpoint": _SAME_COMMAND,
    "restore_callback_states_from_checkpoint": _SAME_COMMAND,
    "push_to_hub": _NO_PUSH,
    "hub_model_id": _NO_PUSH,
    "hub_token": _NO_PUSH,
    "hub_strategy": _NO_PUSH,
    "fsdp": _ALONE,
    "fsdp_config": _ALONE,
    "deepspeed": _ALONE,
    "local_rank": _ALONE,
    "ddp_backend": _ALONE,
    "padding_free": "nothing: it needs kernels that are not among surefoot's requirements",
    "use_liger_kernel": "nothing: TRL has retired it",
    "pad_token": "a tokenizer that names its pad token",
    "lora_target_modules": "lora_r: the adapter is on every linear layer",
}
"""TRL's options that have no effect of their own here -> what to write instead."""
