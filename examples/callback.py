"""A callback that records a metric of its own, logs to a file of its own, and stops the run early."""

import csv
from pathlib import Path

import esper

STEPS = 100_000
ENOUGH = 150


class Watch(esper.Callback):
    """Records the length of the policy's parameters, writes evaluations to a file, and stops at a return."""

    def on_update(self, run):
        length = sum(parameter.detach().square().sum() for parameter in run.agent.network.parameters()).sqrt()
        run.log("parameter_norm", length)

    def on_evaluation(self, run):
        with Path("evaluations.csv").open("a", newline="") as file:
            csv.writer(file).writerow([run.event.env_steps, run.event.eval_return_mean])
        if run.event.eval_return_mean >= ENOUGH:
            run.stop(f"a return of {ENOUGH}")


run = esper.train("CartPole-v1", total_timesteps=STEPS, eval_every=5, callbacks=[Watch()], quiet=True)
print(run)
print("parameter norm, first and last:", run.updates["user/parameter_norm"][[0, -1]])
print(Path("evaluations.csv").read_text())
