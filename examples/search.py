"""Search for learning rates with Optuna (`pip install optuna`); bad trials end early."""

import optuna

import esper
from esper.telemetry.events import UpdateCompleted

STEPS, TRIALS = 10_000, 3


def objective(trial):
    def prune(run):
        update = run.event
        if isinstance(update, UpdateCompleted) and update.episodes:
            trial.report(update.episode_return_mean, update.update)
        if trial.should_prune():
            run.stop("pruned")

    run = esper.train(
        "CartPole-v1",
        policy_lr=trial.suggest_float("policy_lr", 1e-4, 1e-2, log=True),
        value_lr=trial.suggest_float("value_lr", 1e-4, 1e-2, log=True),
        lr_decay=trial.suggest_categorical("lr_decay", ["constant", "linear", "cosine"]),
        total_timesteps=STEPS,
        callbacks=[prune],
        run_dir=f"runs/search/{trial.number}",
        quiet=True,
    )
    if run.cause == "pruned":
        raise optuna.TrialPruned
    return sum(run.evaluate(episodes=10).returns) / 10


study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=1))
study.optimize(objective, n_trials=TRIALS)
print(f"best of {len(study.trials)}: {study.best_value:.0f} with {study.best_params}")
