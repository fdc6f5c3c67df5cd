// Evaluation of whole rollouts, as esper.simic.engines.torch and esper.simic.sequences.
#pragma once
#include <vector>

#include "learner.h"

namespace esper {

// Where episodes of a rollout [num_steps, num_envs] end, and the last observations of those that are truncated.
struct Ends {
  const void* final_obs;
  const bool *terminated, *truncated;
};

// Each [num_steps, num_envs].
struct Evaluation {
  float *log_probs, *values, *next_values;
};

// Some of the environments of a rollout, from `first` on.
class SequenceEvaluation {
 public:
  SequenceEvaluation(const Learner& learner, int64_t num_steps, int64_t num_envs)
      : learner_(learner), networks_(learner.networks()), buffers_(networks_), num_steps_(num_steps),
        num_envs_(num_envs), begins_(new bool[networks_.rows]) {}

  void evaluate(const Batch& rollout, const Ends& ends, int64_t first, int count, const Evaluation& to) {
    const int steps = int(num_steps_) + 1, state_size = networks_.state_size();
    const auto index = [=, this](int row) { return row / count * num_envs_ + first + row % count; };
    learner_.observe(rollout.obs, rollout.byte_values, steps * count, index, buffers_);
    for (int row = 0; row < steps * count; ++row) begins_[row] = rollout.begins[index(row)];
    networks_.begin({count, steps, rollout.recurrent_state + first * state_size, state_size, begins_.get()}, buffers_);
    const Input features = networks_.features(buffers_, steps * count);
    float* output = networks_.output(POLICY, features, buffers_, steps * count);
    const float* value = networks_.output(VALUE, features, buffers_, steps * count);
    const int stride = networks_.output_stride(POLICY), value_stride = networks_.output_stride(VALUE);
    for (int t = 0; t < steps; ++t)
      for (int s = 0; s < count; ++s) {
        const int64_t i = t * num_envs_ + first + s, row = t * count + s;
        if (t) to.next_values[i - num_envs_] = value[row * value_stride];
        if (t == num_steps_) continue;
        to.values[i] = value[row * value_stride];
        to.log_probs[i] = learner_.log_prob(output + row * stride, rollout, i);
      }
    evaluate_ends(rollout, ends, first, count, to.next_values);
  }

 private:
  // The values of the last observations of truncated episodes, after the state of their last steps.
  void evaluate_ends(const Batch& rollout, const Ends& ends, int64_t first, int count, float* next_values) {
    const int state_size = networks_.state_size();
    std::vector<int64_t> found;
    std::vector<float> states;
    for (int t = 0; t < num_steps_; ++t)
      for (int s = 0; s < count; ++s) {
        const int64_t i = t * num_envs_ + first + s;
        if (!ends.truncated[i] || ends.terminated[i]) continue;
        found.push_back(i);
        states.resize(found.size() * state_size);
        networks_.state_after(buffers_, t * count + s, &states[states.size() - state_size]);
      }
    const int rows = int(found.size());
    if (!rows) return;
    learner_.observe(ends.final_obs, rollout.byte_values, rows, [&](int r) { return found[r]; }, buffers_);
    networks_.begin({rows, 1, states.data(), state_size, nullptr}, buffers_);
    const float* value = networks_.output(VALUE, networks_.features(buffers_, rows), buffers_, rows);
    for (int r = 0; r < rows; ++r) next_values[found[r]] = value[r * networks_.output_stride(VALUE)];
  }

  const Learner& learner_;
  const ActorCritic& networks_;
  ActorCritic::Buffers buffers_;
  const int64_t num_steps_, num_envs_;
  std::unique_ptr<bool[]> begins_;
};

// By a recurrent network.
inline void evaluate_sequences(const Learner& learner, const Batch& rollout, const Ends& ends, int64_t num_steps,
                               int64_t num_envs, const Evaluation& to, int threads) {
  const int64_t blocks = (num_envs + SEQUENCES - 1) / SEQUENCES;
  Team::run(int(std::min<int64_t>(threads, blocks)), [&](Team& team, int) {
    SequenceEvaluation evaluation(learner, num_steps, num_envs);
    for (int64_t block; (block = team.take()) < blocks;) {
      const int64_t first = num_envs * block / blocks, last = num_envs * (block + 1) / blocks;
      evaluation.evaluate(rollout, ends, first, int(last - first), to);
    }
  });
}

// By a network of rows: first all observations, then the last ones of truncated episodes.
inline void evaluate_rows(const Learner& learner, const Batch& rollout, const Ends& ends, int64_t num_steps,
                          int64_t num_envs, const Evaluation& to, int threads) {
  const int64_t rows = num_steps * num_envs, all = rows + num_envs;
  std::vector<int64_t> cut;
  for (int64_t i = 0; i < rows; ++i)
    if (ends.truncated[i] && !ends.terminated[i]) cut.push_back(i);
  Team::run(int(std::min<int64_t>(threads, blocks_of(all))), [&](Team& team, int) {
    ActorCritic::Buffers buffers(learner.networks());
    for (int64_t block; (block = team.take()) < blocks_of(all);) {
      const int64_t first = block * BLOCK, last = std::min(first + BLOCK, all);
      learner.observe(rollout.obs, rollout.byte_values, int(last - first), [=](int r) { return first + r; }, buffers);
      const Input features = learner.networks().features(buffers, int(last - first));
      learner.each_output(VALUE, features, int(last - first), buffers, [&](int r, const float* value) {
        const int64_t i = first + r;
        if (i < rows) to.values[i] = *value;
        if (i >= num_envs) to.next_values[i - num_envs] = *value;
      });
      if (first >= rows) continue;
      learner.each_output(POLICY, features, int(last - first), buffers, [&](int r, float* output) {
        if (first + r < rows) to.log_probs[first + r] = learner.log_prob(output, rollout, first + r);
      });
    }
    team.wait();
    for (int64_t block; (block = team.take()) < blocks_of(cut.size());) {
      const int64_t first = block * BLOCK;
      const int count = int(std::min<int64_t>(BLOCK, cut.size() - first));
      learner.observe(ends.final_obs, rollout.byte_values, count, [&](int r) { return cut[first + r]; }, buffers);
      const Input features = learner.networks().features(buffers, count);
      learner.each_output(VALUE, features, count, buffers,
                          [&](int r, const float* value) { to.next_values[cut[first + r]] = *value; });
    }
  });
}

// The actions of a rollout and its states; `rollout.obs` and `rollout.begins` have num_steps + 1 steps.
inline void evaluate_rollout(const Learner& learner, const Batch& rollout, const Ends& ends, int64_t num_steps,
                             int64_t num_envs, const Evaluation& to, int threads) {
  const auto evaluate = learner.recurrent() ? evaluate_sequences : evaluate_rows;
  evaluate(learner, rollout, ends, num_steps, num_envs, to, threads);
}

}  // namespace esper
