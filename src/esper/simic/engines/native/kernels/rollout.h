// Acting, and whole rollouts in environments that are here too.
#pragma once
#include <bit>
#include <cstring>

#include "asterix.h"
#include "breakout.h"
#include "classic_control.h"
#include "freeway.h"
#include "learner.h"
#include "seaquest.h"
#include "space_invaders.h"

namespace esper {

inline bool all_finite(const float* x, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  return largest < 0x7f800000u;
}

// Scales observations as esper.simic.nets.normalization does; without a mean it leaves them alone. Bytes may count as what
// `byte_values` [256] have for them instead.
struct Normalizer {
  const float *mean, *deviation;
  float limit;
  const float* byte_values;

  template <class Value>
  void apply(const Value* obs, int size, float* x) const {
    for (int i = 0; i < size; ++i)
      x[i] = mean ? bounded((obs[i] - mean[i]) / deviation[i], -limit, limit) : obs[i];
  }
};

// The policy of a learner, acting on up to BLOCK rows at a time.
class Actor {
 public:
  Actor(const Learner& learner, const Normalizer& normalizer, ActorCritic::Buffers& buffers)
      : learner_(learner), normalizer_(normalizer), networks_(learner.networks()), buffers_(buffers),
        observation_(learner.observation_size()) {}

  int outputs() const { return learner_.head().outputs(); }
  int state_size() const { return networks_.state_size(); }

  // Actions for `obs` [rows, D], laid out as in a batch; `noise` [rows, outputs] samples, without it the likeliest.
  // `masks` [rows, outputs] allow them, null all. The recurrent `states` [rows, state_size], if there are any, become
  // those after the step.
  template <class Value>
  void act(const Value* obs, int rows, const float* noise, const bool* masks, void* actions, float* states) {
    const Head& head = learner_.head();
    const int size = learner_.observation_size(), n = head.outputs();
    if (normalizer_.byte_values)
      learner_.observe(obs, normalizer_.byte_values, rows, [](int r) { return r; }, buffers_);
    else
      buffers_.observations.take(rows, [&](int r) {
        normalizer_.apply(obs + r * size, size, observation_.data());
        return observation_.data();
      });
    const int state_size = networks_.state_size();
    if (states) networks_.begin({rows, 1, states, state_size, nullptr}, buffers_);
    const Input features = networks_.features(buffers_, rows);
    float* out = networks_.output(POLICY, features, buffers_, rows);
    for (int r = 0; r < rows; ++r, out += networks_.output_stride(POLICY)) {
      if (masks) head.mask(out, masks + r * n);
      head.act(out, noise ? noise + r * n : nullptr, static_cast<char*>(actions) + r * head.action_bytes());
    }
    if (!states) return;
    networks_.output(VALUE, features, buffers_, rows);
    for (int r = 0; r < rows; ++r) networks_.state_after(buffers_, r, states + r * state_size);
  }

 private:
  const Learner& learner_;
  const Normalizer& normalizer_;
  const ActorCritic& networks_;
  ActorCritic::Buffers& buffers_;
  std::vector<float> observation_;
};

struct Span {
  int64_t num_steps, num_envs, max_episode_steps;
};

// Where a rollout is written, and what it is drawn from; as esper.simic.rollout.
struct Rollout {
  void *obs, *actions;
  float* rewards;
  bool *terminated, *truncated;
  void* final_obs;
  float* state;
  int32_t* steps;
  const float *noise, *uniform;
  // Of a recurrent policy: its state now [num_envs, state_size], null for others; which observations begin an episode
  // [num_steps + 1, num_envs], of which the first row is given; where it was reset as it was not finite.
  float* recurrent_state;
  bool *begins, *recurrent_resets;
};

// The copies `first` to `last` of an environment through a whole rollout: copies know nothing of each other.
template <class Env>
void walk(Actor& actor, const Rollout& out, const Span& span, int64_t first, int64_t last) {
  using Action = std::conditional_t<Env::DISCRETE, int64_t, float>;
  using Value = typename Env::Value;
  constexpr int S = Env::STATE, D = Env::OBSERVATION, DRAWS = Env::STEP_DRAWS + Env::BEGIN_DRAWS;
  Value *obs = static_cast<Value*>(out.obs), *final_obs = static_cast<Value*>(out.final_obs);
  const int64_t num_envs = span.num_envs;
  const int noise_width = actor.outputs(), width = Env::DISCRETE ? 1 : noise_width, count = int(last - first);
  const int state_size = actor.state_size();
  float* states = out.recurrent_state ? out.recurrent_state + first * state_size : nullptr;
  for (int64_t e = first; e < last; ++e) Env::observe(out.state + e * S, obs + e * D);
  for (int64_t t = 0; t < span.num_steps; ++t) {
    const int64_t row = t * num_envs;
    Action* actions = static_cast<Action*>(out.actions) + (row + first) * width;
    for (int e = 0; states && e < count; ++e)
      if (out.begins[row + first + e]) std::fill_n(states + e * state_size, state_size, 0.0f);
    actor.act(obs + (row + first) * D, count, out.noise + (row + first) * noise_width, nullptr, actions, states);
    for (int64_t e = first; e < last; ++e) {
      float* s = out.state + e * S;
      bool terminated;
      const float* uniform = out.uniform + (row + e) * DRAWS;
      out.rewards[row + e] = Env::step(s, actions[(e - first) * width], uniform, terminated);
      const bool truncated = ++out.steps[e] >= span.max_episode_steps;
      out.terminated[row + e] = terminated;
      out.truncated[row + e] = truncated;
      if (states) {
        float* recurrent_state = states + (e - first) * state_size;
        const bool ended = terminated || truncated, lost = !all_finite(recurrent_state, state_size);
        out.recurrent_resets[row + e] = lost && !ended;
        out.begins[row + num_envs + e] = lost || ended;
        if (lost) std::fill_n(recurrent_state, state_size, 0.0f);
      }
      if (terminated || truncated) {
        Env::observe(s, final_obs + (row + e) * D);
        Env::begin(uniform + Env::STEP_DRAWS, s);
        out.steps[e] = 0;
      }
      Env::observe(s, obs + (row + num_envs + e) * D);
    }
  }
}

using Walk = void (*)(Actor&, const Rollout&, const Span&, int64_t, int64_t);

struct Environment {
  const char* name;
  Walk walk;
};

constexpr Environment ENVIRONMENTS[] = {
    {"CartPole-v1", walk<CartPole>},
    {"Acrobot-v1", walk<Acrobot>},
    {"Pendulum-v1", walk<Pendulum>},
    {"MountainCar-v0", walk<MountainCar>},
    {"MountainCarContinuous-v0", walk<MountainCarContinuous>},
    {"MinAtar/Breakout-v1", walk<Breakout>},
    {"MinAtar/SpaceInvaders-v1", walk<SpaceInvaders>},
    {"MinAtar/Asterix-v1", walk<Asterix>},
    {"MinAtar/Freeway-v1", walk<Freeway>},
    {"MinAtar/Seaquest-v1", walk<Seaquest>},
};

inline void roll_out(const Learner& learner, const Normalizer& normalizer, Walk walk, const Rollout& out,
                     const Span& span, int threads) {
  const int64_t blocks = blocks_of(span.num_envs);
  Team::run(int(std::min<int64_t>(threads, blocks)), [&](Team& team, int) {
    ActorCritic::Buffers buffers(learner.networks());
    Actor actor(learner, normalizer, buffers);
    for (int64_t block; (block = team.take()) < blocks;)
      walk(actor, out, span, block * BLOCK, std::min<int64_t>((block + 1) * BLOCK, span.num_envs));
  });
}

// What a rollout of vectors [num_steps, num_envs] is learned from, as esper.simic.faults; null for what is not floats.
struct Inputs {
  const float *obs, *final_obs, *rewards, *actions;
  const bool *terminated, *truncated;

  bool are_finite(int64_t num_steps, int64_t num_envs, int64_t observation_size, int64_t action_size) const {
    const int64_t rows = num_steps * num_envs, last = rows - num_envs;
    if (!all_finite(rewards, rows) || (actions && !all_finite(actions, rows * action_size))) return false;
    if (!obs) return true;
    if (!all_finite(obs, rows * observation_size)) return false;
    for (int64_t i = 0; i < rows; ++i) {
      if (truncated[i] && !terminated[i] && !all_finite(final_obs + i * observation_size, observation_size))
        return false;
      const float* next = obs + (i + num_envs) * observation_size;
      if (i >= last && !truncated[i] && !terminated[i] && !all_finite(next, observation_size)) return false;
    }
    return true;
  }
};

// Generalised advantage estimation as esper.simic.advantages, over [num_steps, num_envs].
inline void estimate_advantages(const float* rewards, const float* values, const float* next_values,
                                const bool* terminated, const bool* truncated, int64_t num_steps, int64_t num_envs,
                                float gamma, float gae_lambda, float* advantages, float* returns) {
  for (int64_t t = num_steps; t-- > 0;)
    for (int64_t e = 0; e < num_envs; ++e) {
      const int64_t i = t * num_envs + e;
      const float delta = rewards[i] + (terminated[i] ? 0.0f : gamma * next_values[i]) - values[i];
      const bool cut = terminated[i] || truncated[i] || t + 1 == num_steps;
      advantages[i] = delta + (cut ? 0.0f : gamma * gae_lambda * advantages[i + num_envs]);
      returns[i] = advantages[i] + values[i];
    }
}

// As esper.simic.metrics.explained_variance, where returns vary too little below a share of their root mean square.
inline float explained_variance(const float* returns, const float* values, int64_t rows, double least_deviation) {
  double mean = 0, mean_error = 0, mean_square = 0, variance = 0, unexplained = 0;
  const double n = double(rows);
  for (int64_t i = 0; i < rows; ++i) {
    mean += returns[i] / n;
    mean_error += (double(returns[i]) - values[i]) / n;
    mean_square += double(returns[i]) * returns[i] / n;
  }
  for (int64_t i = 0; i < rows; ++i) {
    const double distance = returns[i] - mean, error = double(returns[i]) - values[i] - mean_error;
    variance += distance * distance;
    unexplained += error * error;
  }
  if (variance / (n - 1) <= least_deviation * least_deviation * mean_square) return NAN;
  // What is beyond float32 is infinite, as in torch, and explains nothing.
  return 1 - float(unexplained) / float(variance);
}

}  // namespace esper
