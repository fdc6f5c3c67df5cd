"""Continue a run from its folder: to its end as if it had never stopped, then beyond it."""

import esper

STEPS = 20_000


def stop_early(run):
    if run.event.env_steps >= STEPS // 2:
        run.stop("half of it")


stopped = esper.train("CartPole-v1", lr_decay="linear", total_timesteps=STEPS, callbacks=[stop_early], quiet=True)
print(stopped)

# Another process can do this too: the folder has the settings. Here the result has the same bits as a run in one go.
whole = esper.resume(stopped.folder, quiet=True)
print(whole, f"last rate {whole.updates['lr/policy'][-1]:.1e}")

longer = esper.resume(whole.folder, total_timesteps=2 * STEPS, schedule="extend", quiet=True)
print(longer, f"last rate {longer.updates['lr/policy'][-1]:.1e}")
