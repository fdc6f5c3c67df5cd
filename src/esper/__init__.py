"""Esper trains policies with PPO under learning-rate schedules."""

__version__ = "0.1.0"
