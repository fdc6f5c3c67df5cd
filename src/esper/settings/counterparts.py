"""What settings of other trainers are called here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from esper.settings.values import nearest

_BATCH = ": the number of minibatches, num_envs * num_steps / batch_size"
_KL = ": the approx_kl that rates follow"

# Their name, then ours, and what differs.
COUNTERPARTS: Mapping[str, tuple[str, str]] = {
    # Stable-Baselines3
    "learning_rate": ("lr", ""),
    "n_envs": ("num_envs", ""),
    "n_steps": ("num_steps", ""),
    "batch_size": ("num_minibatches", _BATCH),
    "n_epochs": ("update_epochs", ""),
    "clip_range": ("clip_coef", ""),
    "clip_range_vf": ("value_clip_coef", ""),
    "normalize_advantage": ("normalize_advantages", ""),
    "ent_coef": ("entropy_coef", ""),
    "vf_coef": ("value_coef", ": of half the squared error; Stable-Baselines3's number twice, CleanRL's as it is"),
    "net_arch": ("hidden_sizes", ""),
    "activation_fn": ("activation", ""),
    "norm_obs": ("normalize_observations", ""),
    "norm_reward": ("normalize_rewards", ""),
    "tensorboard_log": ("run_dir", ": it has the TensorBoard files"),
    "verbose": ("quiet", ""),
    "eval_freq": ("eval_every", ": in updates"),
    "n_eval_episodes": ("eval_episodes", ""),
    "save_freq": ("checkpoint_every", ": in updates, or minutes as 5m"),
    # CleanRL
    "env_id": ("env", ""),
    "anneal_lr": ("lr_decay", ": linear; constant where it is not given"),
    "minibatch_size": ("num_minibatches", _BATCH),
    "norm_adv": ("normalize_advantages", ""),
    "clip_vloss": ("value_clip_coef", ": a number"),
    "cuda": ("device", ": cpu or cuda"),
    "track": ("wandb", ": the project"),
    "wandb_project_name": ("wandb", ""),
    # rsl_rl
    "num_steps_per_env": ("num_steps", ""),
    "max_iterations": ("total_timesteps", ": max_iterations * num_envs * num_steps"),
    "num_learning_epochs": ("update_epochs", ""),
    "num_mini_batches": ("num_minibatches", ""),
    "clip_param": ("clip_coef", ""),
    "value_loss_coef": ("value_coef", ": of half the squared error; rsl_rl's number twice"),
    "use_clipped_value_loss": ("value_clip_coef", ": a number"),
    "lam": ("gae_lambda", ""),
    "desired_kl": ("lr_kl_target", _KL),
    "schedule": ("lr_kl_target", f"{_KL}, which is rsl_rl's schedule adaptive"),
    "actor_hidden_dims": ("hidden_sizes", ""),
    "critic_hidden_dims": ("hidden_sizes", ""),
    "init_noise_std": ("log_std_init", ": its logarithm"),
    "empirical_normalization": ("normalize_observations", ""),
    "save_interval": ("checkpoint_every", ": in updates, or minutes as 5m"),
}


def suggestion(name: str, known: Collection[str], spelled: Callable[[str], str] = str) -> str:
    """What to give in place of the unknown setting `name`, as the end of a message.

    It is the counterpart of another trainer's setting, or else the nearest of the `known` names, which are `spelled`
    as the user does.
    """
    ours, difference = COUNTERPARTS.get(name, ("", ""))
    if spelled(ours) in known:
        return f"; here it is {spelled(ours)}{difference}"
    return nearest(spelled(name), known)
