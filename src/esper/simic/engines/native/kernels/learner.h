// An actor and a critic with their optimizer: evaluation of rows, and minibatch steps of PPO.
#pragma once
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <vector>

#include "loss.h"
#include "network.h"
#include "team.h"

namespace esper {

enum Group { POLICY = 0, VALUE = 1, GROUPS = 2 };
// What a gradient weighs in Adam's moments; 1 - 0.999f would be 1.3e-5 too small.
constexpr float NEW_IN_AVG = 1 - 0.9, NEW_IN_AVG_SQ = 1 - 0.999;
constexpr int MAX_LANES = 16;

struct NetworkConfig {
  int32_t count;                    // of sizes
  const int32_t* sizes;             // widths, from the observation to the output
  const int64_t *weights, *biases;  // where each layer's are in the group's vector
};

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
  int32_t activation, discrete, action_size, normalize_advantages;
  float max_grad_norm;  // negative: no such limit
  float adam_eps;
  Feedback feedback[GROUPS];
  int32_t quantile_count;  // of the ratio, to be told of each minibatch
  const float* quantiles;
};

// Rows of a batch; `actions` are int64 [rows] or float [rows, action_size].
struct Batch {
  const float* obs;
  const void* actions;
  const float *log_probs, *values, *advantages, *returns;
};

// Where the tensors are that an update changes, and those it reads its rates from.
struct State {
  float *parameters[GROUPS], *exp_avg[GROUPS], *exp_avg_sq[GROUPS], *step;
  const float *learning_rates[GROUPS], *clip_coef, *entropy_coef, *value_coef;
  const float *value_clip_coef, *target_kl;  // null: no such limit
  float *stepping, *finite, *factors[GROUPS];
};

// Of a minibatch; gradient norms, whether the optimizer stepped, and the ratio's quantiles follow.
constexpr const char* METRIC_NAMES[] = {"loss",          "policy_loss", "value_loss",         "entropy",   "approx_kl",
                                        "clip_fraction", "ratio_mean",  "ratio_deviation_sq", "ratio_min", "ratio_max"};
constexpr int LOSS_METRICS = std::size(METRIC_NAMES), METRICS = LOSS_METRICS + GROUPS + 1;

class Learner {
 public:
  explicit Learner(const LearnerConfig& config)
      : config_(config), quantiles_(config.quantiles, config.quantiles + config.quantile_count) {
    for (int g = 0; g < GROUPS; ++g) {
      const NetworkConfig& n = config.networks[g];
      std::vector<ptrdiff_t> weights(n.weights, n.weights + n.count - 1), biases(n.biases, n.biases + n.count - 1);
      networks_.emplace_back(n.sizes, n.count, weights.data(), biases.data(), Activation(config.activation));
      packed_.emplace_back(networks_[g].packed_size, 0.0f);
      gradients_.emplace_back(config.parameters[g], 0.0f);
      for (int l = 0; l + 1 < n.count; ++l) parts_.push_back({g, l});
    }
    if (!config.discrete) parts_.push_back({POLICY, -1});
    part_norms_.resize(parts_.size());
  }

  int observation_size() const { return networks_[POLICY].layers.front().in; }
  int action_size() const { return config_.action_size; }
  bool discrete() const { return config_.discrete; }
  const Network& network(Group g) const { return networks_[g]; }
  const float* packed(Group g) const { return packed_[g].data(); }
  const float* log_std() const { return log_std_; }

  // Lets what follows see these parameters.
  void pack(const float* const* parameters) {
    for (int g = 0; g < GROUPS; ++g) networks_[g].pack(parameters[g], packed_[g].data());
    log_std_ = config_.discrete ? nullptr : parameters[POLICY] + config_.log_std;
  }

  // Log probabilities of `actions` and values, each [rows]; either may be null.
  void evaluate(const float* obs, const void* actions, int64_t rows, float* log_probs, float* values, int threads) {
    const int64_t blocks = (rows + BLOCK - 1) / BLOCK;
    Team::run(int(std::min<int64_t>(threads, blocks)), [&](Team& team, int) {
      Buffers buffers(*this);
      for (int64_t block; (block = team.take()) < blocks;) {
        const int64_t first = block * BLOCK;
        const int count = int(std::min<int64_t>(BLOCK, rows - first));
        evaluate_block(obs + first * observation_size(), actions, first, count, log_probs, values, buffers);
      }
    });
  }

  // A PPO step on each minibatch of `indices` [steps, rows]; a row of `metrics` for each.
  void optimize(const Batch& batch, const State& state, const int64_t* indices, int64_t steps, int64_t rows,
                float* metrics, int threads) {
    // A fixed number of partial sums, however many threads add them up: the result is the same to the last bit.
    const int lanes = int(std::min<int64_t>(MAX_LANES, std::max<int64_t>(1, rows / (2 * BLOCK))));
    while (int(lanes_.size()) < lanes) lanes_.emplace_back(new Lane(*this));
    const size_t columns = METRICS + quantiles_.size();
    if (!quantiles_.empty()) ratios_.resize(rows);
    pack(state.parameters);
    Team::run(std::min(threads, lanes), [&](Team& team, int member) {
      float stepping = *state.stepping, finite = *state.finite, step = *state.step;
      float factors[GROUPS] = {*state.factors[POLICY], *state.factors[VALUE]};
      for (int64_t s = 0; s < steps; ++s) {
        const int64_t* rows_of_step = indices + s * rows;
        const Scale scale = advantage_scale(batch, rows_of_step, rows);
        for (int lane; (lane = team.take()) < lanes;)
          accumulate(*lanes_[lane], batch, state, scale, rows_of_step, rows * lane / lanes, rows * (lane + 1) / lanes,
                     rows);
        team.wait();
        float* row_of_step = metrics + s * columns;
        for (size_t part; (part = team.take()) <= parts_.size();)
          if (part < parts_.size())
            reduce(part, lanes);
          else if (!quantiles_.empty())
            quantiles(ratios_, quantiles_, row_of_step + METRICS);
        team.wait();
        float row[METRICS];
        const float norm = summarize(state, lanes, rows, row);
        const bool good = std::isfinite(norm) && std::isfinite(row[0]);
        if (stepping > 0 && !good) finite = 0;
        if (stepping > 0 && good)
          for (int g = 0; g < GROUPS; ++g) factors[g] = config_.feedback[g].follow(factors[g], row[4]);
        if (!good || (state.target_kl && !(row[4] <= *state.target_kl))) stepping = 0;
        row[METRICS - 1] = stepping;
        step += stepping;
        if (stepping > 0)
          for (size_t part; (part = team.take()) < parts_.size();) adam(part, state, norm, step, factors[parts_[part].group]);
        if (member == 0) std::memcpy(row_of_step, row, sizeof row);
        team.wait();
      }
      if (member == 0) {
        *state.stepping = stepping, *state.finite = finite, *state.step = step;
        for (int g = 0; g < GROUPS; ++g) *state.factors[g] = factors[g];
      }
    });
  }

 private:
  // A layer of a group, or with -1 the standard deviations.
  struct Part {
    int group, layer;
  };

  struct Buffers {
    std::vector<float> x, outputs[GROUPS];
    explicit Buffers(const Learner& learner) : x(BLOCK * learner.networks_[0].input_stride(), 0.0f) {
      for (int g = 0; g < GROUPS; ++g) outputs[g].resize(learner.networks_[g].output_size, 0.0f);
    }
  };

  // Partial sums over some rows of a minibatch.
  struct Lane {
    Buffers buffers;
    std::vector<float> gradients[GROUPS], by_log_std;
    Sums sums;
    explicit Lane(const Learner& learner) : buffers(learner), by_log_std(learner.config_.action_size) {
      for (int g = 0; g < GROUPS; ++g) gradients[g].resize(learner.networks_[g].gradient_size);
    }
    void clear() {
      for (auto& gradient : gradients) std::fill(gradient.begin(), gradient.end(), 0.0f);
      std::fill(by_log_std.begin(), by_log_std.end(), 0.0f);
      sums = Sums();
    }
  };

  struct Scale {
    float mean, factor;
  };

  void evaluate_block(const float* obs, const void* actions, int64_t first, int count, float* log_probs, float* values,
                      Buffers& buffers) const {
    const int size = observation_size(), pad = networks_[0].input_stride(), n = action_size();
    for (int r = 0; r < count; ++r) std::memcpy(&buffers.x[r * pad], obs + r * size, size * sizeof(float));
    if (values) {
      const Network& critic = networks_[VALUE];
      const float* out = critic.forward(packed(VALUE), buffers.x.data(), count, buffers.outputs[VALUE].data());
      for (int r = 0; r < count; ++r) values[first + r] = out[r * critic.output_stride()];
    }
    if (!log_probs) return;
    const Network& actor = networks_[POLICY];
    const float* out = actor.forward(packed(POLICY), buffers.x.data(), count, buffers.outputs[POLICY].data());
    for (int r = 0; r < count; ++r) {
      const float* row = out + r * actor.output_stride();
      log_probs[first + r] =
          discrete() ? row[static_cast<const int64_t*>(actions)[first + r]] - log_sum_exp(row, n)
                     : gaussian_log_prob(row, log_std_, static_cast<const float*>(actions) + (first + r) * n, n);
    }
  }

  Scale advantage_scale(const Batch& batch, const int64_t* rows_of_step, int64_t rows) const {
    if (!config_.normalize_advantages) return {0.0f, 1.0f};
    double sum = 0, squares = 0;
    for (int64_t r = 0; r < rows; ++r) sum += batch.advantages[rows_of_step[r]];
    const double mean = sum / rows;
    for (int64_t r = 0; r < rows; ++r) {
      const double distance = batch.advantages[rows_of_step[r]] - mean;
      squares += distance * distance;
    }
    return {float(mean), 1.0f / (float(std::sqrt(squares / (rows - 1))) + 1e-8f)};
  }

  void accumulate(Lane& lane, const Batch& batch, const State& state, Scale scale, const int64_t* rows_of_step,
                  int64_t from, int64_t to, int64_t rows) {
    lane.clear();
    for (; from < to; from += BLOCK)
      accumulate_block(lane, batch, state, scale, rows_of_step + from, int(std::min<int64_t>(BLOCK, to - from)),
                       float(rows), quantiles_.empty() ? nullptr : &ratios_[from]);
  }

  void accumulate_block(Lane& lane, const Batch& batch, const State& state, Scale scale, const int64_t* index,
                        int count, float rows, float* ratios) const {
    const Network &actor = networks_[POLICY], &critic = networks_[VALUE];
    const int size = observation_size(), pad = actor.input_stride(), n = action_size();
    const float clip = *state.clip_coef, entropy_coef = *state.entropy_coef;
    float* x = lane.buffers.x.data();
    float *actor_outputs = lane.buffers.outputs[POLICY].data(), *critic_outputs = lane.buffers.outputs[VALUE].data();
    for (int r = 0; r < count; ++r) std::memcpy(x + r * pad, batch.obs + index[r] * size, size * sizeof(float));
    float* head = actor.forward(packed(POLICY), x, count, actor_outputs);
    for (int r = 0; r < count; ++r) {
      const int64_t i = index[r];
      const float advantage = (batch.advantages[i] - scale.mean) * scale.factor;
      float* row = head + r * actor.output_stride();
      if (discrete())
        categorical_row(row, n, static_cast<const int64_t*>(batch.actions)[i], batch.log_probs[i], advantage, clip,
                        entropy_coef, rows, lane.sums);
      else
        gaussian_row(row, log_std_, n, static_cast<const float*>(batch.actions) + i * n, batch.log_probs[i], advantage,
                     clip, entropy_coef, rows, lane.sums, lane.by_log_std.data());
      if (ratios) ratios[r] = lane.sums.last_ratio;
    }
    actor.backward(packed(POLICY), x, count, actor_outputs, lane.gradients[POLICY].data());
    const float value_scale = *state.value_coef / rows, value_clip = state.value_clip_coef ? *state.value_clip_coef : -1.0f;
    float* value = critic.forward(packed(VALUE), x, count, critic_outputs);
    for (int r = 0; r < count; ++r) {
      float& v = value[r * critic.output_stride()];
      v = value_row(v, batch.values[index[r]], batch.returns[index[r]], value_clip, value_scale,
                    lane.sums);
    }
    critic.backward(packed(VALUE), x, count, critic_outputs, lane.gradients[VALUE].data());
  }

  // Where a part begins in its group's vector, and how long it is: a layer's bias follows its weight.
  ptrdiff_t begin(const Part& part) const {
    return part.layer < 0 ? config_.log_std : networks_[part.group].layers[part.layer].weight;
  }
  ptrdiff_t size(const Part& part) const {
    if (part.layer < 0) return action_size();
    const Layer& l = networks_[part.group].layers[part.layer];
    return ptrdiff_t(l.out) * (l.in + 1);
  }

  // Adds up the lanes' gradients of a part, and their squares.
  void reduce(size_t index, int lanes) {
    const Part& part = parts_[index];
    float* gradient = gradients_[part.group].data() + begin(part);
    std::fill(gradient, gradient + size(part), 0.0f);
    for (int lane = 0; lane < lanes; ++lane) {
      const float* from = lanes_[lane]->gradients[part.group].data();
      if (part.layer < 0) {
        for (int j = 0; j < action_size(); ++j) gradient[j] += lanes_[lane]->by_log_std[j];
        continue;
      }
      const Layer& l = networks_[part.group].layers[part.layer];
      for (int o = 0; o < l.out; ++o)
        for (int i = 0; i < l.in; ++i) gradient[o * l.in + i] += from[l.gradient + o * l.in_stride + i];
      for (int o = 0; o < l.out; ++o) gradient[l.out * l.in + o] += from[l.gradient_bias + o];
    }
    part_norms_[index] = sum_of_squares(gradient, size(part));
  }

  // Infinity for a sum that float32, in which torch adds up, cannot hold: both refuse the same updates.
  static double in_float(double sum) { return std::isfinite(float(sum)) ? sum : double(float(sum)); }

  // Fills a row of metrics but for its last; returns the norm of all gradients.
  float summarize(const State& state, int lanes, int64_t rows, float* row) const {
    Sums sums;
    for (int lane = 0; lane < lanes; ++lane) sums.add(lanes_[lane]->sums);
    double squares[GROUPS] = {0, 0};
    for (size_t part = 0; part < parts_.size(); ++part) squares[parts_[part].group] += part_norms_[part];
    const double n = double(rows), policy = in_float(sums.policy) / n, entropy = in_float(sums.entropy) / n;
    // Half the sum of the squared errors.
    const double value = in_float(2 * sums.value) / 2 / n;
    const double loss = policy + *state.value_coef * value - *state.entropy_coef * entropy;
    const double metrics[LOSS_METRICS] = {loss,
                              policy,
                              value,
                              entropy,
                              in_float(sums.kl) / n,
                              sums.clipped / n,
                              in_float(sums.ratio) / n,
                              in_float(sums.deviation_sq) / n,
                              sums.ratio_min,
                              sums.ratio_max};
    for (int i = 0; i < LOSS_METRICS; ++i) row[i] = float(metrics[i]);
    for (int g = 0; g < GROUPS; ++g) row[LOSS_METRICS + g] = float(std::sqrt(in_float(squares[g])));
    return float(std::sqrt(in_float(squares[POLICY] + squares[VALUE])));
  }

  // Adam on a part, as in esper.simic.optimizers; then the networks see its new parameters.
  void adam(size_t index, const State& state, float norm, float step, float factor) {
    const Part& part = parts_[index];
    const float clip = config_.max_grad_norm < 0 ? 1.0f : std::min(1.0f, config_.max_grad_norm / (norm + 1e-6f));
    const float correction1 = -std::expm1(step * std::log(0.9)), eps = config_.adam_eps;
    const float correction2 = std::sqrt(-std::expm1(step * std::log(0.999)));
    const float rate = *state.learning_rates[part.group] * factor / correction1;
    const ptrdiff_t first = begin(part), count = size(part);
    const float* __restrict g = gradients_[part.group].data() + first;
    float* __restrict p = state.parameters[part.group] + first;
    float* __restrict m = state.exp_avg[part.group] + first;
    float* __restrict v = state.exp_avg_sq[part.group] + first;
    for (ptrdiff_t i = 0; i < count; ++i) {
      const float gradient = g[i] * clip;
      m[i] += (gradient - m[i]) * NEW_IN_AVG;
      v[i] += (gradient * gradient - v[i]) * NEW_IN_AVG_SQ;
      p[i] -= rate * (m[i] / (std::sqrt(v[i]) / correction2 + eps));
    }
    if (part.layer >= 0) {
      const Network& network = networks_[part.group];
      network.pack(network.layers[part.layer], state.parameters[part.group], packed_[part.group].data());
    }
  }

  LearnerConfig config_;
  std::vector<Network> networks_;
  std::vector<std::vector<float>> packed_, gradients_;
  std::vector<float> quantiles_, ratios_;
  std::vector<Part> parts_;
  std::vector<double> part_norms_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  const float* log_std_ = nullptr;
};

}  // namespace esper
