// An actor and a critic, on the same rows or above a trunk that both share.
#pragma once
#include <cstring>
#include <vector>

#include "settings.h"

namespace esper {

class ActorCritic {
 public:
  // What a block of rows [BLOCK, input_stride] becomes, and the gradients by the trunk's output.
  struct Buffers {
    AlignedFloats rows, outputs[GROUPS], by_features;

    explicit Buffers(const ActorCritic& networks)
        : rows(BLOCK * networks.input_stride(), 0.0f),
          by_features(networks.shares() ? BLOCK * networks[SHARED].back().out_stride : 0, 0.0f) {
      for (int g = 0; g < GROUPS; ++g) outputs[g].resize(networks[g].rooms.outputs.size, 0.0f);
    }
  };

  // Sums of gradients, laid out as the layers have it.
  struct Gradients {
    AlignedFloats sums[GROUPS];

    explicit Gradients(const ActorCritic& networks) {
      for (int g = 0; g < GROUPS; ++g) sums[g].resize(networks[g].rooms.gradients.size);
    }
  };

  explicit ActorCritic(const NetworkConfig* configs) {
    for (int g = 0; g < GROUPS; ++g) {
      networks_.emplace_back(configs[g]);
      packed_.emplace_back(networks_[g].rooms.packed.size, 0.0f);
    }
  }

  const Network& operator[](int group) const { return networks_[group]; }
  bool shares() const { return !networks_[SHARED].empty(); }
  const Layer& first() const { return networks_[shares() ? SHARED : POLICY].front(); }
  int input_size() const { return first().in; }
  int input_stride() const { return first().in_stride; }
  int output_stride(Group group) const { return networks_[group].back().out_stride; }

  // Lets what follows see these parameters, of all layers or of one.
  void pack(const float* const* parameters) {
    for (int g = 0; g < GROUPS; ++g) networks_[g].pack(parameters[g], packed_[g].data());
  }
  void pack(int group, const Layer& layer, const float* parameters) {
    layer.pack(parameters + layer.first, packed_[group].data());
  }

  // What actor and critic read, of the rows in `buffers`.
  const float* features(Buffers& buffers, int count) const {
    return forward(SHARED, buffers.rows.data(), buffers, count);
  }

  // The output [count, output_stride] of actor or critic for `features`; gradients by it may replace it.
  float* output(Group group, const float* features, Buffers& buffers, int count) const {
    forward(group, features, buffers, count);
    return networks_[group].back().output(buffers.outputs[group].data());
  }

  // Adds the gradients of the actor, of which the buffers hold those by its output.
  void backward_actor(const float* features, Buffers& buffers, int count, Gradients& gradients) const {
    const Target aside{buffers.by_features.data(), IDENTITY, buffers.by_features.data()};
    backward(POLICY, features, buffers, count, gradients, shares() ? &aside : nullptr);
  }

  // The same of the critic, after the actor. Then all of the trunk's gradients are there: their sum goes on through it.
  void backward_critic(const float* features, Buffers& buffers, int count, Gradients& gradients) const {
    if (!shares()) return backward(VALUE, features, buffers, count, gradients, nullptr);
    Target trunk = networks_[SHARED].back().target(buffers.outputs[SHARED].data());
    trunk.added = buffers.by_features.data();
    backward(VALUE, features, buffers, count, gradients, &trunk);
    backward(SHARED, buffers.rows.data(), buffers, count, gradients, nullptr);
  }

 private:
  const float* forward(int group, const float* x, Buffers& buffers, int count) const {
    return networks_[group].forward(packed_[group].data(), x, count, buffers.outputs[group].data());
  }

  void backward(int group, const float* x, Buffers& buffers, int count, Gradients& gradients,
                const Target* target) const {
    networks_[group].backward(packed_[group].data(), x, count, buffers.outputs[group].data(),
                              gradients.sums[group].data(), target);
  }

  std::vector<Network> networks_;
  std::vector<AlignedFloats> packed_;
};

}  // namespace esper
