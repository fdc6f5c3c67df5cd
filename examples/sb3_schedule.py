"""A schedule of Esper as the learning rate of Stable-Baselines3's PPO (`pip install stable-baselines3`)."""

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from esper.schedules import ScheduleConfig, as_progress_callable, make_schedule

UPDATES, ROLLOUT = 10, 256

schedule = make_schedule(ScheduleConfig(peak=1e-3, warmup_steps=2, decay="cosine"), UPDATES)
model = PPO("MlpPolicy", "CartPole-v1", n_steps=ROLLOUT, learning_rate=as_progress_callable(schedule, UPDATES))


class Show(BaseCallback):
    """Prints the rate that the optimizer has when a rollout begins: that of the update before."""

    def _on_rollout_start(self):
        rate = self.model.policy.optimizer.param_groups[0]["lr"]
        print(f"after {self.num_timesteps:5,} steps: rate {rate:.1e}")

    def _on_step(self):
        return True


model.learn(UPDATES * ROLLOUT, callback=Show())
