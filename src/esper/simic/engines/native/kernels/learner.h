// An actor and a critic with their optimizer: evaluation of rows, and minibatch steps of PPO.
#pragma once
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "actor_critic.h"
#include "head.h"
#include "places.h"
#include "team.h"
#include "undo.h"

namespace esper {

// What a gradient weighs in Adam's moments; 1 - 0.999f would be 1.3e-5 too small.
constexpr float NEW_IN_AVG = 1 - 0.9, NEW_IN_AVG_SQ = 1 - 0.999;
constexpr int MAX_LANES = 16;
// Floats in the sums of a lane, of which a few lanes fill the cache of a core.
constexpr size_t MANY_GRADIENTS = 1 << 16;
// Sequences in a block: enough rows for a product, few enough for two threads to share 16.
constexpr int SEQUENCES = 8;

class Learner {
 public:
  explicit Learner(const LearnerConfig& config)
      : config_(config), networks_(config.networks, rows_of_block(config)),
        head_(networks_[POLICY].back().out, config.choice_sizes, config.choices),
        quantiles_(config.quantiles, config.quantiles + config.quantile_count) {
    for (int g = 0; g < GROUPS; ++g) {
      gradients_.emplace_back(config.parameters[g], 0.0f);
      const Network& network = networks_[g];
      for (size_t l = 0; l < network.layers.size(); ++l) {
        const Layer& layer = *network.layers[l];
        parts_.push_back({g, &layer, layer.first, layer.size, network.gradients[l], network.gradients[l + 1]});
      }
    }
    if (!head_.discrete()) parts_.push_back({POLICY, nullptr, ptrdiff_t(config.log_std), head_.outputs(), 0, 0});
    part_norms_.resize(parts_.size());
  }

  int observation_size() const { return networks_.input_size(); }
  const ActorCritic& networks() const { return networks_; }
  const Head& head() const { return head_; }
  bool recurrent() const { return config_.sequence_steps > 0; }

  // Observations `index(0)` to `index(count - 1)` of a batch into the networks' input.
  template <class Index>
  void observe(const void* obs, const float* byte_values, int count, Index index, ActorCritic::Buffers& buffers) const {
    const int64_t size = observation_size();
    const auto bytes = [&](int r) { return static_cast<const uint8_t*>(obs) + index(r) * size; };
    const auto floats = [&](int r) { return static_cast<const float*>(obs) + index(r) * size; };
    byte_values ? buffers.observations.take(count, bytes, byte_values) : buffers.observations.take(count, floats);
  }

  // Lets what follows see these parameters.
  void pack(const float* const* parameters) {
    networks_.pack(parameters);
    if (!head_.discrete()) head_.set_log_std(parameters[POLICY] + config_.log_std);
  }

  // The log probability of row `i` of the batch's actions, from the actor's output, which is masked.
  float log_prob(float* output, const Batch& batch, int64_t i) const {
    return head_.log_prob(masked(output, batch, i), action(batch, i));
  }

  // Log probabilities of the batch's actions and values, each [rows].
  void evaluate(const Batch& batch, int64_t rows, float* log_probs, float* values, int threads) const {
    const int64_t blocks = blocks_of(rows);
    Team::run(int(std::min<int64_t>(threads, blocks)), [&](Team& team, int) {
      ActorCritic::Buffers buffers(networks_);
      for (int64_t block; (block = team.take()) < blocks;) {
        const int64_t first = block * BLOCK;
        const int count = int(std::min<int64_t>(BLOCK, rows - first));
        observe(batch.obs, batch.byte_values, count, [=](int r) { return first + r; }, buffers);
        const Input seen = networks_.features(buffers, count);
        each_output(VALUE, seen, count, buffers, [&](int r, const float* value) { values[first + r] = *value; });
        each_output(POLICY, seen, count, buffers,
                    [&](int r, float* output) { log_probs[first + r] = log_prob(output, batch, first + r); });
      }
    });
  }

  // Calls `use(r, output)` for each of `count` rows of features: of all that were observed, as layers know their number.
  template <class Use>
  void each_output(Group group, Input features, int count, ActorCritic::Buffers& buffers, Use use) const {
    float* output = networks_.output(group, features, buffers, count);
    for (int r = 0; r < count; ++r) use(r, output + r * networks_.output_stride(group));
  }

  // A PPO step on each minibatch of `indices` [steps, rows], or of sequences; a row of `metrics` for each. All is as it
  // was unless all stays finite.
  void optimize(const Batch& batch, const State& state, const int64_t* indices, int64_t steps, int64_t rows,
                float* metrics, int threads) {
    // A fixed number of partial sums, however many threads add them up: the result is the same to the last bit.
    const int64_t wanted = recurrent() ? (rows + SEQUENCES - 1) / SEQUENCES : rows / rows_of_lane();
    const int lanes = int(std::min<int64_t>(MAX_LANES, std::max<int64_t>(1, wanted)));
    while (int(lanes_.size()) < lanes) lanes_.emplace_back(new Lane(networks_, head_));
    const int stepped = LOSS_METRICS + config_.groups, named = stepped + 1;
    const size_t columns = named + quantiles_.size();
    if (!quantiles_.empty()) ratios_.resize(rows * length());
    pack(state.parameters);
    undo_.keep(state, config_);
    Team::run(std::min(threads, lanes), [&](Team& team, int member) {
      float stepping = *state.stepping, finite = *state.finite, step = *state.step;
      float factors[GROUPS];
      for (int g = 0; g < config_.groups; ++g) factors[g] = *state.factors[g];
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
            quantiles(ratios_, quantiles_, row_of_step + named);
        team.wait();
        float row[LOSS_METRICS + GROUPS + 1];
        const float norm = summarize(state, lanes, rows * length(), row);
        const bool good = std::isfinite(norm) && std::isfinite(row[0]);
        if (stepping > 0 && !good) finite = 0;
        if (stepping > 0 && good)
          for (int g = 0; g < config_.groups; ++g) factors[g] = config_.feedback[g].follow(factors[g], row[4]);
        if (!good || (state.target_kl && !(row[4] <= *state.target_kl))) stepping = 0;
        row[stepped] = stepping;
        step += stepping;
        if (stepping > 0)
          for (size_t part; (part = team.take()) < parts_.size();) {
            const int group = parts_[part].group;
            adam(part, state, config_.max_grad_norm_over_group ? row[LOSS_METRICS + group] : norm, step, factors[group]);
          }
        if (member == 0) std::memcpy(row_of_step, row, named * sizeof(float));
        team.wait();
      }
      if (member == 0) {
        *state.stepping = stepping, *state.finite = finite, *state.step = step;
        for (int g = 0; g < config_.groups; ++g) *state.factors[g] = factors[g];
      }
    });
    // A step can be finite and still throw the parameters out of float32; the next loss would show it too late.
    for (int g = 0; g < config_.groups; ++g)
      if (!std::isfinite(in_float(sum_of_squares(state.parameters[g], config_.parameters[g])))) *state.finite = 0;
    if (!*state.finite) undo_.restore(state, config_);
  }

  // For one caller that acts at a time.
  ActorCritic::Buffers& acting() {
    if (!acting_) acting_.reset(new ActorCritic::Buffers(networks_));
    return *acting_;
  }

 private:
  // With the step after the last one, which is evaluated too.
  static int rows_of_block(const LearnerConfig& config) {
    return config.sequence_steps ? std::max(BLOCK, SEQUENCES * (config.sequence_steps + 1)) : BLOCK;
  }

  // At least. Sums that do not fit into the cache are cleared, written and added up again for every lane.
  int64_t rows_of_lane() const { return (networks_.gradients() > MANY_GRADIENTS ? 4 : 2) * BLOCK; }

  // Rows of the batch for each index of a minibatch.
  int64_t length() const { return std::max(1, config_.sequence_steps); }

  // A layer of a group, or without one the standard deviations: where its parameters begin in the group's vector, how
  // many there are, and from where to where its sums of gradients are.
  struct Part {
    int group;
    const Layer* layer;
    ptrdiff_t first, size, from, to;
  };

  // Partial sums over some rows of a minibatch.
  struct Lane {
    ActorCritic::Buffers buffers;
    ActorCritic::Gradients gradients;
    Head::Work head;
    Places places;
    Sums sums;
    Lane(const ActorCritic& networks, const Head& head)
        : buffers(networks), gradients(networks), head(head), places(networks) {}
    void clear() {
      for (auto& sum : gradients.sums) std::fill(sum.begin(), sum.end(), 0.0f);
      std::fill(head.by_log_std.begin(), head.by_log_std.end(), 0.0f);
      sums = Sums();
    }
  };

  struct Scale {
    float mean, factor;
  };

  const void* action(const Batch& batch, int64_t row) const {
    return static_cast<const char*>(batch.actions) + row * head_.action_bytes();
  }

  // The actor's output of a row of the batch, among what is allowed.
  float* masked(float* output, const Batch& batch, int64_t row) const {
    if (batch.masks) head_.mask(output, batch.masks + row * head_.outputs());
    return output;
  }

  Scale advantage_scale(const Batch& batch, const int64_t* rows_of_step, int64_t rows) const {
    if (!config_.normalize_advantages) return {0.0f, 1.0f};
    const int64_t steps = length(), count = rows * steps;
    double sum = 0, squares = 0;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t t = 0; t < steps; ++t) sum += batch.advantages[rows_of_step[r] * steps + t];
    const double mean = sum / count;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t t = 0; t < steps; ++t) {
        const double distance = batch.advantages[rows_of_step[r] * steps + t] - mean;
        squares += distance * distance;
      }
    return {float(mean), 1.0f / (float(std::sqrt(squares / (count - 1))) + 1e-8f)};
  }

  void accumulate(Lane& lane, const Batch& batch, const State& state, Scale scale, const int64_t* rows_of_step,
                  int64_t from, int64_t to, int64_t rows) {
    lane.clear();
    const int64_t size = recurrent() ? SEQUENCES : BLOCK;
    for (; from < to; from += size) {
      const int count = int(std::min(size, to - from));
      const int64_t* index = rows_of_step + from;
      if (recurrent()) index = lane.places.begin(networks_, batch, index, count, config_.sequence_steps, lane.buffers);
      accumulate_block(lane, batch, state, scale, index, count * int(length()), float(rows * length()),
                       quantiles_.empty() ? nullptr : &ratios_[from * length()]);
    }
  }

  // `index` are the rows of the batch.
  void accumulate_block(Lane& lane, const Batch& batch, const State& state, Scale scale, const int64_t* index,
                        int count, float rows, float* ratios) const {
    const float clip = *state.clip_coef, entropy_coef = *state.entropy_coef;
    observe(batch.obs, batch.byte_values, count, [=](int r) { return index[r]; }, lane.buffers);
    const Input features = networks_.features(lane.buffers, count);
    float* output = networks_.output(POLICY, features, lane.buffers, count);
    lane.places.each(output, networks_.output_stride(POLICY), count, [&](float* row, int r, int about) {
      const int64_t i = index[r], seen = index[about];
      const float advantage = (batch.advantages[i] - scale.mean) * scale.factor;
      const Objective objective{batch.log_probs[i], advantage, clip, entropy_coef, rows};
      head_.differentiate(masked(row, batch, seen), action(batch, seen), objective, lane.sums, lane.head);
      if (ratios) ratios[r] = lane.sums.last_ratio;
    });
    networks_.backward(POLICY, features, lane.buffers, count, lane.gradients);
    const float value_scale = *state.value_coef / rows, value_clip = state.value_clip_coef ? *state.value_clip_coef : -1.0f;
    float* values = networks_.output(VALUE, features, lane.buffers, count);
    lane.places.each(values, networks_.output_stride(VALUE), count, [&](float* value, int r, int) {
      *value = value_row(*value, batch.values[index[r]], batch.returns[index[r]], value_clip, value_scale, lane.sums);
    });
    networks_.backward(VALUE, features, lane.buffers, count, lane.gradients);
    networks_.backward_trunk(lane.buffers, count, lane.gradients);
  }

  // Adds up the lanes' gradients of a part, and their squares.
  void reduce(size_t index, int lanes) {
    const Part& part = parts_[index];
    float* gradient = gradients_[part.group].data() + part.first;
    std::fill(gradient, gradient + part.size, 0.0f);
    if (part.layer) {
      float* sums = lanes_[0]->gradients.sums[part.group].data();
      for (ptrdiff_t i = part.from; i < part.to; i += LANES) {
        vec sum = load(sums + i);
        for (int lane = 1; lane < lanes; ++lane) sum += load(&lanes_[lane]->gradients.sums[part.group][i]);
        store(sums + i, sum);
      }
      part.layer->add_up(sums, gradient);
    } else {
      for (int lane = 0; lane < lanes; ++lane)
        for (int j = 0; j < part.size; ++j) gradient[j] += lanes_[lane]->head.by_log_std[j];
    }
    part_norms_[index] = sum_of_squares(gradient, part.size);
  }

  // Infinity for a sum that float32, in which torch adds up, cannot hold: both refuse the same updates.
  static double in_float(double sum) { return std::isfinite(float(sum)) ? sum : double(float(sum)); }

  // Fills a row of metrics but for its last; returns the norm of all gradients.
  float summarize(const State& state, int lanes, int64_t rows, float* row) const {
    Sums sums;
    for (int lane = 0; lane < lanes; ++lane) sums.add(lanes_[lane]->sums);
    double squares[GROUPS] = {};
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
    for (int g = 0; g < config_.groups; ++g) row[LOSS_METRICS + g] = float(std::sqrt(in_float(squares[g])));
    return float(std::sqrt(in_float(squares[POLICY] + squares[VALUE] + squares[SHARED])));
  }

  // Adam on a part, as in esper.simic.optimizers; then the networks see its new parameters.
  void adam(size_t index, const State& state, float norm, float step, float factor) {
    const Part& part = parts_[index];
    const float clip = config_.max_grad_norm < 0 ? 1.0f : std::min(1.0f, config_.max_grad_norm / (norm + 1e-6f));
    const float correction1 = -std::expm1(step * std::log(0.9)), eps = config_.adam_eps;
    const float correction2 = std::sqrt(-std::expm1(step * std::log(0.999)));
    const float rate = *state.learning_rates[part.group] * factor / correction1;
    const float* __restrict g = gradients_[part.group].data() + part.first;
    float* __restrict p = state.parameters[part.group] + part.first;
    float* __restrict m = state.exp_avg[part.group] + part.first;
    float* __restrict v = state.exp_avg_sq[part.group] + part.first;
    for (ptrdiff_t i = 0; i < part.size; ++i) {
      const float gradient = g[i] * clip;
      m[i] += (gradient - m[i]) * NEW_IN_AVG;
      v[i] += (gradient * gradient - v[i]) * NEW_IN_AVG_SQ;
      p[i] -= rate * (m[i] / (std::sqrt(v[i]) / correction2 + eps));
    }
    if (part.layer) networks_.pack(part.group, *part.layer, state.parameters[part.group]);
  }

  LearnerConfig config_;
  ActorCritic networks_;
  Head head_;
  std::vector<std::vector<float>> gradients_;
  std::vector<float> quantiles_, ratios_;
  std::vector<Part> parts_;
  std::vector<double> part_norms_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::unique_ptr<ActorCritic::Buffers> acting_;
  Undo undo_;
};

}  // namespace esper
