"""The physics of Gymnasium's classic control, for N environments at once.

Each class is one environment. Constants and formulas are those of Gymnasium 1.4 (`gymnasium.envs.classic_control`); the
tests compare them step by step. States are of any floating dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from esper.envs.base import ContinuousActions, DiscreteActions, Vectors
from esper.envs.device.dynamics import Dynamics, Outcome


class CartPole(Dynamics):
    """x, its velocity, the pole's angle, its velocity (Barto, Sutton and Anderson 1983), by explicit Euler."""

    observations, max_episode_steps = Vectors(size=4), 500
    state_size = begin_draws = 4
    actions = DiscreteActions(n=2)

    gravity, cart_mass, pole_mass, half_length, force, tau = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
    x_limit, angle_limit = 2.4, 12 * 2 * math.pi / 360

    def begin(self, state: Tensor, uniform: Tensor) -> Tensor:
        return uniform * 0.1 - 0.05

    def step(self, state: Tensor, action: Tensor, uniform: Tensor) -> Outcome:
        x, x_dot, angle, angle_dot = state.unbind(-1)
        mass, moment = self.cart_mass + self.pole_mass, self.pole_mass * self.half_length
        force = (action * 2 - 1).to(state.dtype) * self.force
        cos, sin = angle.cos(), angle.sin()
        push = (force + moment * angle_dot.square() * sin) / mass
        angle_acc = (self.gravity * sin - cos * push) / (
            self.half_length * (4.0 / 3.0 - self.pole_mass * cos.square() / mass)
        )
        x_acc = push - moment * angle_acc * cos / mass
        x, x_dot = x + self.tau * x_dot, x_dot + self.tau * x_acc
        angle, angle_dot = angle + self.tau * angle_dot, angle_dot + self.tau * angle_acc
        terminated = (x.abs() > self.x_limit) | (angle.abs() > self.angle_limit)
        return Outcome(torch.stack((x, x_dot, angle, angle_dot), -1), torch.ones_like(x), terminated)

    def observe(self, state: Tensor) -> Tensor:
        return state


class Acrobot(Dynamics):
    """Two angles and their velocities, the second from the first link (Sutton 1996), by Runge-Kutta of order 4."""

    observations, max_episode_steps = Vectors(size=6), 500
    state_size = begin_draws = 4
    actions = DiscreteActions(n=3)

    # Both links: mass 1, length 1, centre at 0.5, moment of inertia 1.
    gravity, centre, dt = 9.8, 0.5, 0.2
    speed_limits = (4 * math.pi, 9 * math.pi)

    def begin(self, state: Tensor, uniform: Tensor) -> Tensor:
        return uniform * 0.2 - 0.1

    def step(self, state: Tensor, action: Tensor, uniform: Tensor) -> Outcome:
        torque, dt = (action - 1).to(state.dtype), self.dt
        k1 = self._derivative(state, torque)
        k2 = self._derivative(state + dt / 2 * k1, torque)
        k3 = self._derivative(state + dt / 2 * k2, torque)
        k4 = self._derivative(state + dt * k3, torque)
        angle1, angle2, speed1, speed2 = (state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)).unbind(-1)
        # Speeds are bounded, so an angle leaves the circle by less than two turns.
        angle1, angle2 = _wrap(angle1), _wrap(angle2)
        speed1 = speed1.clamp(-self.speed_limits[0], self.speed_limits[0])
        speed2 = speed2.clamp(-self.speed_limits[1], self.speed_limits[1])
        terminated = -angle1.cos() - (angle2 + angle1).cos() > 1.0
        reward = torch.where(terminated, 0.0, -torch.ones_like(angle1))
        return Outcome(torch.stack((angle1, angle2, speed1, speed2), -1), reward, terminated)

    def _derivative(self, state: Tensor, torque: Tensor) -> Tensor:
        angle1, angle2, speed1, speed2 = state.unbind(-1)
        cos2, sin2, c, g = angle2.cos(), angle2.sin(), self.centre, self.gravity
        d1 = c**2 + (1 + c**2 + 2 * c * cos2) + 2
        d2 = c**2 + c * cos2 + 1
        phi2 = c * g * (angle1 + angle2 - math.pi / 2).cos()
        phi1 = (
            -c * speed2.square() * sin2
            - 2 * c * speed2 * speed1 * sin2
            + (c + 1) * g * (angle1 - math.pi / 2).cos()
            + phi2
        )
        acc2 = (torque + d2 / d1 * phi1 - c * speed1.square() * sin2 - phi2) / (c**2 + 1 - d2.square() / d1)
        acc1 = -(d2 * acc2 + phi1) / d1
        return torch.stack((speed1, speed2, acc1, acc2), -1)

    def observe(self, state: Tensor) -> Tensor:
        angle1, angle2, speed1, speed2 = state.unbind(-1)
        return torch.stack((angle1.cos(), angle1.sin(), angle2.cos(), angle2.sin(), speed1, speed2), -1)


class Pendulum(Dynamics):
    """Angle from the top, and its velocity; never terminates."""

    observations, max_episode_steps = Vectors(size=3), 200
    state_size = begin_draws = 2
    actions = ContinuousActions(size=1)
    action_bound = 2.0

    gravity, mass, length, dt, max_speed = 10.0, 1.0, 1.0, 0.05, 8.0

    def begin(self, state: Tensor, uniform: Tensor) -> Tensor:
        angle, speed = (uniform * 2 - 1).unbind(-1)
        return torch.stack((angle * math.pi, speed), -1)

    def step(self, state: Tensor, action: Tensor, uniform: Tensor) -> Outcome:
        angle, speed = state.unbind(-1)
        torque = action[:, 0].to(state.dtype)
        upright = (angle + math.pi) % (2 * math.pi) - math.pi
        cost = upright.square() + 0.1 * speed.square() + 0.001 * torque.square()
        gain = 3 * self.gravity / (2 * self.length) * angle.sin() + 3.0 / (self.mass * self.length**2) * torque
        speed = (speed + gain * self.dt).clamp(-self.max_speed, self.max_speed)
        state = torch.stack((angle + speed * self.dt, speed), -1)
        return Outcome(state, -cost, torch.zeros_like(cost, dtype=torch.bool))

    def observe(self, state: Tensor) -> Tensor:
        angle, speed = state.unbind(-1)
        return torch.stack((angle.cos(), angle.sin(), speed), -1)


class _Mountain(Dynamics):
    """Position and velocity of a car whose engine is too weak for the hill (Moore 1990)."""

    observations = Vectors(size=2)
    state_size = begin_draws = 2

    gravity, max_speed, bounds = 0.0025, 0.07, (-1.2, 0.6)
    goal: ClassVar[float]

    def begin(self, state: Tensor, uniform: Tensor) -> Tensor:
        return torch.stack((uniform[:, 0] * 0.2 - 0.6, torch.zeros_like(uniform[:, 0])), -1)

    def observe(self, state: Tensor) -> Tensor:
        return state

    def drive(self, state: Tensor, push: Tensor) -> tuple[Tensor, Tensor]:
        """The next states, and which cars reached the goal."""
        position, speed = state.unbind(-1)
        speed = (speed + push - self.gravity * (3 * position).cos()).clamp(-self.max_speed, self.max_speed)
        position = (position + speed).clamp(*self.bounds)
        # The left wall stops the car.
        speed = torch.where((position == self.bounds[0]) & (speed < 0), 0.0, speed)
        return torch.stack((position, speed), -1), (position >= self.goal) & (speed >= 0)


class MountainCar(_Mountain):
    """The engine pushes left, not at all, or right; every step costs 1."""

    max_episode_steps = 200
    actions = DiscreteActions(n=3)
    force, goal = 0.001, 0.5

    def step(self, state: Tensor, action: Tensor, uniform: Tensor) -> Outcome:
        state, arrived = self.drive(state, (action - 1).to(state.dtype) * self.force)
        return Outcome(state, -torch.ones_like(state[:, 0]), arrived)


class MountainCarContinuous(_Mountain):
    """The action is the force of the engine; 100 for reaching the goal, less the energy."""

    max_episode_steps = 999
    actions = ContinuousActions(size=1)
    power, goal = 0.0015, 0.45

    def step(self, state: Tensor, action: Tensor, uniform: Tensor) -> Outcome:
        force = action[:, 0].to(state.dtype)
        state, arrived = self.drive(state, force * self.power)
        return Outcome(state, 100.0 * arrived - 0.1 * force.square(), arrived)


CLASSIC_CONTROL: dict[str, Callable[[], Dynamics]] = {
    "CartPole-v1": CartPole,
    "Acrobot-v1": Acrobot,
    "Pendulum-v1": Pendulum,
    "MountainCar-v0": MountainCar,
    "MountainCarContinuous-v0": MountainCarContinuous,
}


def _wrap(angle: Tensor) -> Tensor:
    """`angle` within plus and minus pi, when it is less than two turns outside."""
    for _ in range(2):
        angle = torch.where(angle > math.pi, angle - 2 * math.pi, angle)
        angle = torch.where(angle < -math.pi, angle + 2 * math.pi, angle)
    return angle
