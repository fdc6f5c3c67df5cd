// What Python passes: settings that stay, and where tensors are. `layout.h` describes them to Python.
#pragma once
#include <algorithm>
#include <cstdint>
#include <iterator>

#include "network.h"

namespace esper {

// Groups of parameters, in the optimizer's order; the last one only where actor and critic share layers.
enum Group { POLICY = 0, VALUE = 1, SHARED = 2, GROUPS = 3 };

// How the factor of a group's learning rate follows approx_kl, as in esper.simic.feedback.
struct Feedback {
  float target, min_factor, max_factor, step;
  int32_t every_minibatch;  // else the factor is only read

  float follow(float factor, float approx_kl) const {
    if (!every_minibatch) return factor;
    if (approx_kl > 2 * target)
      factor /= step;
    else if (approx_kl > 1e-7f && approx_kl < target / 2)
      factor *= step;
    return std::min(std::max(factor, min_factor), max_factor);
  }
};

struct LearnerConfig {
  NetworkConfig networks[GROUPS];
  int64_t parameters[GROUPS];  // floats in each group's vector
  int64_t log_std;             // where it is in the policy's vector, if actions are continuous
  int32_t groups, normalize_advantages;
  int32_t sequence_steps;  // of the sequences that a recurrent network learns from; 0: rows are independent
  int32_t choices;  // of an action, 0 if it is numbers
  const int32_t* choice_sizes;
  float max_grad_norm;  // negative: no such limit
  int32_t max_grad_norm_over_group;  // else over all parameters
  float adam_eps;
  Feedback feedback[GROUPS];
  int32_t quantile_count;  // of the ratio, to be told of each minibatch
  const float* quantiles;
};

// Rows of a batch; `obs` are [rows, inputs], floats or bytes, `actions` are int64 [rows, choices] or float [rows, outputs], `masks` [rows,
// outputs] or null. For a recurrent network rows are sequences [sequences, steps], and one may be about a `selected` step
// (null: its own), as in esper.simic.losses.
struct Batch {
  const void* obs;
  const float* byte_values;  // what each byte of the observations counts as [256]; null: they are floats
  const void* actions;
  const float *log_probs, *values, *advantages, *returns;
  const bool* masks;
  const float* recurrent_state;
  const bool* begins;
  const int64_t* selected;
};

// Where the tensors are that an update changes, and those it reads its rates from.
struct State {
  float *parameters[GROUPS], *exp_avg[GROUPS], *exp_avg_sq[GROUPS], *step;
  const float *learning_rates[GROUPS], *clip_coef, *entropy_coef, *value_coef;
  const float *value_clip_coef, *target_kl;  // null: no such limit
  float *stepping, *finite, *factors[GROUPS];
};

// Of a minibatch; gradient norms by group, whether the optimizer stepped, and the ratio's quantiles follow.
constexpr const char* METRIC_NAMES[] = {"loss",          "policy_loss", "value_loss",         "entropy",   "approx_kl",
                                        "clip_fraction", "ratio_mean",  "ratio_deviation_sq", "ratio_min", "ratio_max"};
constexpr int LOSS_METRICS = std::size(METRIC_NAMES);

}  // namespace esper
