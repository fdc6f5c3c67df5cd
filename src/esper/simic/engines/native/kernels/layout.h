// What Python has to know of what it passes and reads, as text for `layout.py`, which checks it when it loads the
// library: a line for each field of a struct (offset and size, bytes), each metric, activation, kind of
// layer and environment.
#pragma once
#include <cstddef>
#include <string>

#include "evaluation.h"
#include "rollout.h"

namespace esper {

inline std::string layout() {
  std::string text;
  const auto line = [&](std::string name, size_t first, size_t second) {
    text += name + " " + std::to_string(first) + " " + std::to_string(second) + "\n";
  };
#define FIELD(STRUCT, NAME) line(#STRUCT "." #NAME, offsetof(STRUCT, NAME), sizeof(STRUCT::NAME));
  FIELD(LayerConfig, kind)
  FIELD(LayerConfig, inputs)
  FIELD(LayerConfig, outputs)
  FIELD(LayerConfig, activation)
  FIELD(LayerConfig, first)
  FIELD(LayerConfig, channels)
  FIELD(LayerConfig, width)
  FIELD(LayerConfig, kernel)
  FIELD(LayerConfig, stride)
  FIELD(NetworkConfig, count)
  FIELD(NetworkConfig, layers)
  FIELD(Feedback, target)
  FIELD(Feedback, min_factor)
  FIELD(Feedback, max_factor)
  FIELD(Feedback, step)
  FIELD(Feedback, every_minibatch)
  FIELD(LearnerConfig, networks)
  FIELD(LearnerConfig, parameters)
  FIELD(LearnerConfig, log_std)
  FIELD(LearnerConfig, groups)
  FIELD(LearnerConfig, normalize_advantages)
  FIELD(LearnerConfig, sequence_steps)
  FIELD(LearnerConfig, choices)
  FIELD(LearnerConfig, choice_sizes)
  FIELD(LearnerConfig, max_grad_norm)
  FIELD(LearnerConfig, max_grad_norm_over_group)
  FIELD(LearnerConfig, adam_eps)
  FIELD(LearnerConfig, feedback)
  FIELD(LearnerConfig, quantile_count)
  FIELD(LearnerConfig, quantiles)
  FIELD(Batch, obs)
  FIELD(Batch, byte_values)
  FIELD(Batch, actions)
  FIELD(Batch, log_probs)
  FIELD(Batch, values)
  FIELD(Batch, advantages)
  FIELD(Batch, returns)
  FIELD(Batch, masks)
  FIELD(Batch, recurrent_state)
  FIELD(Batch, begins)
  FIELD(Batch, selected)
  FIELD(State, parameters)
  FIELD(State, exp_avg)
  FIELD(State, exp_avg_sq)
  FIELD(State, step)
  FIELD(State, learning_rates)
  FIELD(State, clip_coef)
  FIELD(State, entropy_coef)
  FIELD(State, value_coef)
  FIELD(State, value_clip_coef)
  FIELD(State, target_kl)
  FIELD(State, stepping)
  FIELD(State, finite)
  FIELD(State, factors)
  FIELD(Normalizer, mean)
  FIELD(Normalizer, deviation)
  FIELD(Normalizer, limit)
  FIELD(Normalizer, byte_values)
  FIELD(Rollout, obs)
  FIELD(Rollout, actions)
  FIELD(Rollout, rewards)
  FIELD(Rollout, terminated)
  FIELD(Rollout, truncated)
  FIELD(Rollout, final_obs)
  FIELD(Rollout, state)
  FIELD(Rollout, steps)
  FIELD(Rollout, noise)
  FIELD(Rollout, uniform)
  FIELD(Rollout, recurrent_state)
  FIELD(Rollout, begins)
  FIELD(Rollout, recurrent_resets)
  FIELD(Ends, final_obs)
  FIELD(Ends, terminated)
  FIELD(Ends, truncated)
  FIELD(Inputs, obs)
  FIELD(Inputs, final_obs)
  FIELD(Inputs, rewards)
  FIELD(Inputs, actions)
  FIELD(Inputs, terminated)
  FIELD(Inputs, truncated)
#undef FIELD
  const auto numbers = [&](std::string kind, const auto& names, size_t size) {
    for (size_t i = 0; i < std::size(names); ++i) line(kind + "." + names[i], i, size);
  };
  numbers("metric", METRIC_NAMES, sizeof(float));
  numbers("activation", ACTIVATION_NAMES, sizeof(int32_t));
  numbers("layer", LAYER_NAMES, sizeof(int32_t));
  for (size_t i = 0; i < std::size(ENVIRONMENTS); ++i)
    line(std::string("environment.") + ENVIRONMENTS[i].name, i, sizeof(int32_t));
  return text;
}

}  // namespace esper
