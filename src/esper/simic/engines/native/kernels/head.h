// What an actor's output is a distribution of, as in esper.simic.nets.distributions: independent choices, or numbers
// that are normal each.
#pragma once
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "loss.h"

namespace esper {

constexpr float HALF_LOG_TWO_PI = 0.918938533204672742f;

inline float log_sum_exp(const float* logits, int n) {
  float top = logits[0];
  for (int j = 1; j < n; ++j) top = std::max(top, logits[j]);
  float sum = 0;
  for (int j = 0; j < n; ++j) sum += std::exp(logits[j] - top);
  return top + std::log(sum);
}

class Head {
 public:
  // What gradients are computed with: by the standard deviations' logs, the sums so far; of each choice of a row, the
  // log of the sum of exponentials and the entropy.
  struct Work {
    std::vector<float> by_log_std, norms, entropies;
    explicit Work(const Head& head)
        : by_log_std(head.discrete() ? 0 : head.outputs_), norms(head.sizes_.size()), entropies(head.sizes_.size()) {}
  };

  // For `outputs` of an actor: so many choices of these sizes, or with none numbers.
  Head(int outputs, const int32_t* sizes, int choices) : outputs_(outputs), sizes_(sizes, sizes + choices) {}

  bool discrete() const { return !sizes_.empty(); }
  int outputs() const { return outputs_; }
  size_t action_bytes() const { return discrete() ? sizes_.size() * sizeof(int64_t) : outputs_ * sizeof(float); }

  // The logs of the standard deviations, which are read from there.
  void set_log_std(const float* log_std) { log_std_ = log_std; }

  // Leaves choices out that are not `allowed` [outputs]. An infinite logit would make the entropy 0 * inf, NaN.
  void mask(float* logits, const bool* allowed) const {
    for (int j = 0; j < outputs_; ++j)
      if (!allowed[j]) logits[j] = -FLT_MAX;
  }

  // In what follows `action` is int64 [choices] or float [outputs].
  float log_prob(const float* output, const void* action) const {
    if (!discrete()) return gaussian_log_prob(output, static_cast<const float*>(action));
    float sum = 0;
    for (size_t k = 0; k < sizes_.size(); output += sizes_[k++])
      sum += output[chosen(action, k)] - log_sum_exp(output, sizes_[k]);
    return sum;
  }

  // Samples by `noise` [outputs]; without it, the likeliest.
  void act(const float* output, const float* noise, void* action) const {
    if (!discrete()) {
      for (int j = 0; j < outputs_; ++j)
        static_cast<float*>(action)[j] = output[j] + (noise ? std::exp(log_std_[j]) * noise[j] : 0.0f);
      return;
    }
    for (size_t k = 0; k < sizes_.size(); ++k) {
      static_cast<int64_t*>(action)[k] = choose(output, noise, sizes_[k]);
      output += sizes_[k];
      if (noise) noise += sizes_[k];
    }
  }

  // Turns `output` into the gradients by it.
  void differentiate(float* output, const void* action, const Objective& objective, Sums& sums, Work& work) const {
    if (discrete())
      differentiate_choices(output, action, objective, sums, work);
    else
      differentiate_gaussian(output, static_cast<const float*>(action), objective, sums, work);
  }

 private:
  static int64_t chosen(const void* action, size_t choice) { return static_cast<const int64_t*>(action)[choice]; }

  static int64_t choose(const float* logits, const float* noise, int n) {
    int64_t best = 0;
    float most = -INFINITY;
    for (int j = 0; j < n; ++j) {
      const float score = logits[j] + (noise ? noise[j] : 0.0f);
      if (score > most) most = score, best = j;
    }
    return best;
  }

  float gaussian_log_prob(const float* mean, const float* action) const {
    float sum = 0;
    for (int j = 0; j < outputs_; ++j) {
      const float scaled = (action[j] - mean[j]) * std::exp(-log_std_[j]);
      sum += -0.5f * scaled * scaled - log_std_[j] - HALF_LOG_TWO_PI;
    }
    return sum;
  }

  void differentiate_choices(float* logits, const void* action, const Objective& objective, Sums& sums,
                             Work& work) const {
    float log_prob = 0, entropy = 0;
    const float* choice = logits;
    for (size_t k = 0; k < sizes_.size(); choice += sizes_[k++]) {
      const float norm = work.norms[k] = log_sum_exp(choice, sizes_[k]);
      float own = 0;
      for (int j = 0; j < sizes_[k]; ++j) own -= std::exp(choice[j] - norm) * (choice[j] - norm);
      work.entropies[k] = own;
      entropy += own;
      log_prob += choice[chosen(action, k)] - norm;
    }
    sums.entropy += entropy;
    const float by_log_prob = policy_term(log_prob, objective, sums), by_entropy = objective.entropy_coef / objective.rows;
    for (size_t k = 0; k < sizes_.size(); logits += sizes_[k++])
      for (int j = 0; j < sizes_[k]; ++j) {
        const float log_prob = logits[j] - work.norms[k], prob = std::exp(log_prob);
        logits[j] = by_log_prob * ((j == chosen(action, k)) - prob) + by_entropy * prob * (log_prob + work.entropies[k]);
      }
  }

  void differentiate_gaussian(float* mean, const float* action, const Objective& objective, Sums& sums,
                              Work& work) const {
    const float by_log_prob = policy_term(gaussian_log_prob(mean, action), objective, sums);
    for (int j = 0; j < outputs_; ++j) {
      const float inverse = std::exp(-log_std_[j]), scaled = (action[j] - mean[j]) * inverse;
      sums.entropy += log_std_[j] + 0.5f + HALF_LOG_TWO_PI;
      mean[j] = by_log_prob * scaled * inverse;
      work.by_log_std[j] += by_log_prob * (scaled * scaled - 1) - objective.entropy_coef / objective.rows;
    }
  }

  int outputs_;
  std::vector<int32_t> sizes_;
  const float* log_std_ = nullptr;
};

}  // namespace esper
