// An actor and a critic, on the same rows or above a trunk that both share.
#pragma once
#include <cstring>
#include <vector>

#include "observations.h"
#include "settings.h"

namespace esper {

class ActorCritic {
 public:
  // A block of rows and what they become, and the gradients of actor and critic by the trunk's output.
  struct Buffers {
    Observations observations;
    AlignedFloats outputs[GROUPS], by_features[2];

    explicit Buffers(const ActorCritic& networks)
        : observations(networks.first(), networks.rows, networks.most_dots(), networks.reads_busy()) {
      for (int g = 0; g < GROUPS; ++g) outputs[g].resize(networks[g].rooms.outputs.size, 0.0f);
      if (networks.shares())
        for (auto& by : by_features) by.resize(networks.rows * networks[SHARED].back().out_stride, 0.0f);
    }

    Target target(Group group) { return {by_features[group].data(), IDENTITY, by_features[group].data()}; }
  };

  // Sums of gradients, laid out as the layers have it.
  struct Gradients {
    AlignedFloats sums[GROUPS];

    explicit Gradients(const ActorCritic& networks) {
      for (int g = 0; g < GROUPS; ++g) sums[g].resize(networks[g].rooms.gradients.size);
    }
  };

  const int rows;  // of a block

  ActorCritic(const NetworkConfig* configs, int rows) : rows(rows) {
    for (int g = 0; g < GROUPS; ++g) {
      networks_.emplace_back(configs[g], rows, g == SHARED || !configs[SHARED].count);
      packed_.emplace_back(networks_[g].rooms.packed.size, 0.0f);
    }
  }

  const Network& operator[](int group) const { return networks_[group]; }
  bool shares() const { return !networks_[SHARED].empty(); }
  const Layer& first() const { return networks_[shares() ? SHARED : POLICY].front(); }
  int input_size() const { return first().in; }
  int output_stride(Group group) const { return networks_[group].back().out_stride; }

  // Lets what follows see these parameters, of all layers or of one.
  void pack(const float* const* parameters) {
    for (int g = 0; g < GROUPS; ++g) networks_[g].pack(parameters[g], packed_[g].data());
  }
  void pack(int group, const Layer& layer, const float* parameters) {
    layer.pack(parameters + layer.first, packed_[group].data());
  }

  // Floats in sums of gradients.
  size_t gradients() const {
    size_t size = 0;
    for (const Network& network : networks_) size += network.rooms.gradients.size;
    return size;
  }

  // Floats of the recurrent state: of the trunk, of the actor, of the critic.
  int state_size() const {
    int size = 0;
    for (const Network& network : networks_) size += network.rooms.state;
    return size;
  }

  // Lets the rows that go forward next be `sequences`.
  void begin(Sequences sequences, Buffers& buffers) const {
    for (int group : STATES) {
      networks_[group].begin(sequences, buffers.outputs[group].data());
      sequences.states += networks_[group].rooms.state;
    }
  }

  // Copies the `state` after a row that went forward through all of them.
  void state_after(const Buffers& buffers, int row, float* state) const {
    for (int group : STATES) {
      networks_[group].state_after(buffers.outputs[group].data(), row, state);
      state += networks_[group].rooms.state;
    }
  }

  // What actor and critic read, of the observations in `buffers`.
  Input features(Buffers& buffers, int count) const {
    return forward(SHARED, buffers.observations.input(), buffers, count);
  }

  // The output [count, output_stride] of actor or critic for `features`; gradients by it may replace it.
  float* output(Group group, Input features, Buffers& buffers, int count) const {
    forward(group, features, buffers, count);
    return networks_[group].back().output(buffers.outputs[group].data());
  }

  // Adds the gradients of actor or critic, of which the buffers hold those by its output.
  void backward(Group group, Input features, Buffers& buffers, int count, Gradients& gradients) const {
    const Target target = buffers.target(group);
    backward(group, features, buffers, count, gradients, shares() ? &target : nullptr);
  }

  // After both, the gradients of the trunk, by the sum of theirs.
  void backward_trunk(Buffers& buffers, int count, Gradients& gradients) const {
    if (!shares()) return;
    const int stride = networks_[SHARED].back().out_stride;
    const Target trunk = networks_[SHARED].back().target(buffers.outputs[SHARED].data());
    const float *by_actor = buffers.by_features[POLICY].data(), *by_critic = buffers.by_features[VALUE].data();
    trunk.with(stride, [&](auto end) {
      for (int r = 0; r < count; ++r)
        for (int n = 0; n < stride; n += LANES)
          end(r, n, load(by_actor + r * stride + n) + load(by_critic + r * stride + n));
    });
    backward(SHARED, buffers.observations.input(), buffers, count, gradients, nullptr);
  }

 private:
  static constexpr Group STATES[] = {SHARED, POLICY, VALUE};

  // In a row, of which all first layers can read them.
  int most_dots() const {
    return shares() ? first().most_dots() : std::min(first().most_dots(), networks_[VALUE].front().most_dots());
  }

  // Whether those that read observations read what is near dots.
  bool reads_busy() const {
    return shares() ? networks_[SHARED].reads_busy() : networks_[POLICY].reads_busy() && networks_[VALUE].reads_busy();
  }

  Input forward(int group, Input x, Buffers& buffers, int count) const {
    return networks_[group].forward(packed_[group].data(), x, count, buffers.outputs[group].data());
  }

  void backward(int group, Input x, Buffers& buffers, int count, Gradients& gradients, const Target* target) const {
    networks_[group].backward(packed_[group].data(), x, count, buffers.outputs[group].data(),
                              gradients.sums[group].data(), target);
  }

  std::vector<Network> networks_;
  std::vector<AlignedFloats> packed_;
};

}  // namespace esper
