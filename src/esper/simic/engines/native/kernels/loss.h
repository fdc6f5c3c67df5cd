// The PPO loss of one row and its gradients by log probability and value; the same as esper.simic.losses.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace esper {

// Of the rows so far: sums, and the extremes of the ratio.
struct Sums {
  double policy = 0, value = 0, entropy = 0, kl = 0, clipped = 0, ratio = 0, deviation_sq = 0;
  float ratio_min = INFINITY, ratio_max = -INFINITY, last_ratio = 0;

  void add(float r, float log_ratio, float clip) {
    const float deviation = r - 1;
    last_ratio = r;
    kl += deviation - log_ratio;
    clipped += std::fabs(deviation) > clip;
    ratio += r;
    deviation_sq += deviation * deviation;
    // Once NaN, always NaN, as torch.min has it.
    if (r < ratio_min || r != r) ratio_min = r;
    if (r > ratio_max || r != r) ratio_max = r;
  }

  void add(const Sums& o) {
    policy += o.policy, value += o.value, entropy += o.entropy, kl += o.kl, clipped += o.clipped;
    ratio += o.ratio, deviation_sq += o.deviation_sq;
    if (o.ratio_min < ratio_min || o.ratio_min != o.ratio_min) ratio_min = o.ratio_min;
    if (o.ratio_max > ratio_max || o.ratio_max != o.ratio_max) ratio_max = o.ratio_max;
  }
};

// The quantiles at `at`, ascending, of `values`, which it reorders; between two values on the line through them.
inline void quantiles(std::vector<float>& values, const std::vector<float>& at, float* found) {
  const auto end = values.end();
  if (std::any_of(values.begin(), end, [](float v) { return v != v; })) {
    std::fill_n(found, at.size(), NAN);
    return;
  }
  auto from = values.begin();
  for (size_t i = 0; i < at.size(); ++i) {
    const double place = double(at[i]) * (values.size() - 1);
    const auto below = values.begin() + ptrdiff_t(place);
    if (below >= from) std::nth_element(from, below, end);
    from = below;
    const float above = below + 1 < end ? *std::min_element(below + 1, end) : *below;
    found[i] = float(*below + (place - std::floor(place)) * (double(above) - *below));
  }
}

// What the loss of the policy is computed from, of a row: it is a mean over `rows`.
struct Objective {
  float old_log_prob, advantage, clip, entropy_coef, rows;
};

// What the policy loss says of a row: its derivative by the log probability.
inline float policy_term(float log_prob, const Objective& objective, Sums& sums) {
  const auto [old_log_prob, advantage, clip, entropy_coef, rows] = objective;
  const float log_ratio = log_prob - old_log_prob, ratio = std::exp(log_ratio), deviation = ratio - 1;
  const float clipped = std::min(std::max(deviation, -clip), clip) + 1;
  const float free = advantage * ratio, bound = advantage * clipped;
  sums.add(ratio, log_ratio, clip);
  sums.policy -= free != free || bound != bound ? free + bound : std::min(free, bound);
  const bool inside = std::fabs(deviation) <= clip;
  // Times 0, a ratio that is infinite becomes NaN, as in torch: it is no step to take.
  return inside || free < bound || free != free ? -free / rows : 0.0f * ratio;
}

// The gradient of `scale` times half the squared error by the value; a negative `clip` means that there is none.
inline float value_row(float value, float old_value, float target, float clip, float scale, Sums& sums) {
  const float error = value - target, squared = error * error;
  if (clip < 0) {
    sums.value += 0.5 * squared;
    return scale * error;
  }
  const float moved = value - old_value;
  const float near_error = old_value + std::min(std::max(moved, -clip), clip) - target;
  const float near_squared = near_error * near_error;
  const float near_gradient = std::fabs(moved) <= clip ? near_error : 0.0f;
  sums.value += 0.5 * (squared != squared ? squared : std::max(squared, near_squared));
  if (squared == near_squared) return scale * 0.5f * (error + near_gradient);
  return scale * (squared < near_squared ? near_gradient : error);
}

}  // namespace esper
