"""A rate that follows the KL: `lr_kl_target` multiplies the schedule by a factor that keeps the KL near it."""

import esper

STEPS = 40_000

run = esper.train(
    "CartPole-v1", lr=1e-2, lr_decay="linear", lr_kl_target=0.01, total_timesteps=STEPS, preset="none", quiet=True
)
updates = run.updates
for update in range(0, len(updates["update"]), 5):
    schedule, factor, kl = (updates[name][update] for name in ("lr/policy", "lr_factor/policy", "approx_kl"))
    print(f"update {update:2}: schedule {schedule:.1e} x factor {factor:.2f}, KL {kl:.3f}")
